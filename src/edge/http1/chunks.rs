//! A chunked body, followed to its last byte (RFC 9112 §7.1).
//!
//! Stricter than the grammar: no whitespace around a chunk's size, no tab in an extension, no trailer that would say how the message
//! ends or where it goes.

use super::line;

/// Bytes of all chunk extensions of a body together, RFC 9112 §7.1.1. No known client sends one.
const EXTENSIONS_MAX: usize = 4096;

/// Bytes of the trailer section, RFC 9112 §7.1.2.
const TRAILERS_MAX: usize = 8192;

/// Digits of a chunk's size.
const DIGITS_MAX: u8 = 16;

/// Longest name among those that no trailer may have.
const NAME_MAX: usize = 17;

/// How a body broke the chunked coding. Where it ends can no longer be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadChunk {
    /// A size that is no hexadecimal number, or none.
    Size,
    /// More than 16 digits, or than `i64::MAX` bytes.
    SizeTooLarge,
    Space,
    BareCr,
    BareLf,
    /// A control character in an extension.
    Extension,
    ExtensionsTooLarge,
    /// Other than CRLF after the bytes of a chunk.
    DataEnd,
    /// A trailer that is no field line.
    Trailer,
    /// Transfer-Encoding, Content-Length or Host.
    TrailerName,
    TrailersTooLarge,
}

impl BadChunk {
    /// Every one, in the order of declaration.
    pub const ALL: [Self; 11] = [
        Self::Size,
        Self::SizeTooLarge,
        Self::Space,
        Self::BareCr,
        Self::BareLf,
        Self::Extension,
        Self::ExtensionsTooLarge,
        Self::DataEnd,
        Self::Trailer,
        Self::TrailerName,
        Self::TrailersTooLarge,
    ];

    /// A word for metrics, which never changes.
    pub const fn reason(self) -> &'static str {
        self.told().0
    }

    /// A sentence for the client. It names the rule, never the data.
    pub const fn detail(self) -> &'static str {
        self.told().1
    }

    const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Size => ("chunk_size", "A chunk's size is not a hexadecimal number."),
            Self::SizeTooLarge => ("chunk_size_too_large", "A chunk's size is too large."),
            Self::Space => ("chunk_space", "A chunk's size has whitespace around it."),
            Self::BareCr => ("chunk_bare_cr", "The chunked body has a carriage return without a line feed."),
            Self::BareLf => ("chunk_bare_lf", "The chunked body has a line feed without a carriage return."),
            Self::Extension => ("chunk_extension", "A chunk extension has a control character."),
            Self::ExtensionsTooLarge => ("chunk_extensions_too_large", "The chunk extensions of the body are too large."),
            Self::DataEnd => ("chunk_data_end", "A chunk does not end where its size says."),
            Self::Trailer => ("trailer", "A trailer is not a field."),
            Self::TrailerName => ("trailer_name", "A trailer is of a name that no trailer may have."),
            Self::TrailersTooLarge => ("trailers_too_large", "The trailer section is too large."),
        }
    }
}

/// What some bytes were to a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// How many of them are the body's, from the first. All, unless it ended.
    pub taken: usize,
    /// The body has ended with the last one taken, trailers and empty line included.
    pub whole: bool,
}

/// Follows a chunked body through its bytes, in parts of any length. The bytes of chunks are passed over, not looked at.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    /// Of the chunk that is being read: its size as far as it is known, then the bytes of it still to come.
    left: u64,
    digits: u8,
    extensions: usize,
    trailers: usize,
    /// Begin of the name of the trailer that is being read, in lower case.
    name: [u8; NAME_MAX],
    /// Its length, as far as it is known.
    name_length: usize,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { state: State::Size, left: 0, digits: 0, extensions: 0, trailers: 0, name: [0; NAME_MAX], name_length: 0 }
    }
}

impl Chunks {
    /// Takes the next bytes of the connection. Those after the end are left.
    ///
    /// # Errors
    /// They break the coding. Nothing of them is to be used, nor what follows.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress, BadChunk> {
        let mut rest = bytes;
        while self.state != State::End {
            if self.state == State::Data {
                rest = self.pass_over(rest);
            }
            let Some((byte, after)) = rest.split_first() else { break };
            self.state = self.step(*byte)?;
            rest = after;
        }
        Ok(Progress { taken: bytes.len() - rest.len(), whole: self.state == State::End })
    }

    /// Leaves what is not of this chunk.
    fn pass_over<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let within = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.left -= within as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        bytes.get(within..).unwrap_or_default()
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        match (self.state, byte) {
            (State::Size, _) => self.size(byte),
            (State::Extension, _) => self.extension(byte),
            (State::SizeLf, b'\n') => Ok(self.chunk()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(self.next_size()),
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName | State::TrailerValue, _) => self.trailer(byte),
            (State::TrailerLf, b'\n') => self.count_trailer().map(|()| State::TrailerStart),
            (State::EndLf, b'\n') | (State::End, _) => Ok(State::End),
            (State::Data | State::DataCr | State::DataLf, _) => Err(BadChunk::DataEnd),
            (State::SizeLf | State::TrailerLf | State::EndLf, _) => Err(BadChunk::BareCr),
        }
    }

    fn next_size(&mut self) -> State {
        (self.left, self.digits) = (0, 0);
        State::Size
    }

    fn size(&mut self, byte: u8) -> Result<State, BadChunk> {
        match (byte, char::from(byte).to_digit(16)) {
            (_, Some(digit)) => self.digit(digit),
            (b' ' | b'\t', _) => Err(BadChunk::Space),
            (b'\n', _) => Err(BadChunk::BareLf),
            (b'\r', _) if self.digits > 0 => Ok(State::SizeLf),
            (b';', _) if self.digits > 0 => self.extension(byte),
            _ => Err(BadChunk::Size),
        }
    }

    fn digit(&mut self, digit: u32) -> Result<State, BadChunk> {
        // No bit of a size is lost: as many digits as it may have are 64 bits.
        self.left = self.left << 4 | u64::from(digit);
        self.digits = self.digits.saturating_add(1);
        if self.digits > DIGITS_MAX || i64::try_from(self.left).is_err() { Err(BadChunk::SizeTooLarge) } else { Ok(State::Size) }
    }

    fn extension(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.extensions += 1;
        match byte {
            b'\r' => Ok(State::SizeLf),
            b'\n' => Err(BadChunk::BareLf),
            0..0x20 | 0x7f => Err(BadChunk::Extension),
            _ if self.extensions > EXTENSIONS_MAX => Err(BadChunk::ExtensionsTooLarge),
            _ => Ok(State::Extension),
        }
    }

    const fn chunk(&self) -> State {
        if self.left == 0 { State::TrailerStart } else { State::Data }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.count_trailer()?;
        match (self.state, byte) {
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (_, b'\n') => Err(BadChunk::BareLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerName, b':') => self.named(),
            (State::TrailerStart, _) if line::is_tchar(byte) => Ok(self.begin_name(byte)),
            (State::TrailerName, _) if line::is_tchar(byte) => Ok(self.name(byte)),
            _ => Err(BadChunk::Trailer),
        }
    }

    fn count_trailer(&mut self) -> Result<(), BadChunk> {
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX { Err(BadChunk::TrailersTooLarge) } else { Ok(()) }
    }

    fn begin_name(&mut self, byte: u8) -> State {
        self.name_length = 0;
        self.name(byte)
    }

    fn name(&mut self, byte: u8) -> State {
        if let Some(place) = self.name.get_mut(self.name_length) {
            *place = byte.to_ascii_lowercase();
        }
        self.name_length += 1;
        State::TrailerName
    }

    fn named(&self) -> Result<State, BadChunk> {
        match self.name.get(..self.name_length) {
            Some(b"transfer-encoding" | b"content-length" | b"host") => Err(BadChunk::TrailerName),
            _ => Ok(State::TrailerValue),
        }
    }
}

#[cfg(test)]
mod tests;
