//! `banyan key new`: makes an API key.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use rustls::crypto::SecureRandom;
use sha2::{Digest, Sha256};

/// API keys of consumers.
#[derive(Args, Debug)]
pub struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    New(New),
}

/// Make an API key for a consumer, and print it with the lines of the configuration that it needs.
///
/// The key is shown this once: the configuration has only its digest.
#[derive(Args, Debug)]
struct New {
    /// Name of the consumer.
    #[arg(value_parser = name)]
    consumer: String,
}

/// How every key begins, for those who look for leaked ones. A key is this, 43 characters of 256 random bits, and 6 of their CRC-32, by which a
/// scanner tells a key from what only looks like one.
const PREFIX: &str = "banyan_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Characters that 256 bits, and a CRC-32, take in this alphabet.
const SECRET_LENGTH: usize = 43;
const CHECKSUM_LENGTH: usize = 6;

impl Key {
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        let Command::New(new) = self.command;
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        super::print(told(&new.consumer, &key(random)?).as_bytes())
    }
}

fn name(text: &str) -> Result<String, String> {
    let name = serde_yaml::Value::String(text.to_owned());
    let name: Result<crate::name::ConsumerName, _> = serde_yaml::from_value(name);
    name.map(|name| name.to_string()).map_err(|error| error.to_string())
}

fn key(random: &dyn SecureRandom) -> anyhow::Result<String> {
    let mut secret = [0; 32];
    random.fill(&mut secret).ok().context("the system has no randomness")?;
    let secret = base62(&secret, SECRET_LENGTH);
    let checksum = base62(&crc32(secret.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH);
    Ok(format!("{PREFIX}{secret}{checksum}"))
}

fn told(consumer: &str, key: &str) -> String {
    let digest = Sha256::digest(key);
    format!(
        "{key}\n\n# Give it to {consumer}; it is not shown again. In the configuration:\nconsumers:\n  {consumer}:\n    credentials:\n      - api_key: {{ sha256: \"{digest:x}\" }}\n"
    )
}

/// A number of many bytes in the alphabet, the highest digit first, filled up to the length.
fn base62(number: &[u8], length: usize) -> String {
    let mut number = number.to_vec();
    let mut digits: Vec<u8> = Vec::with_capacity(length);
    for _ in 0..length {
        let rest = number.iter_mut().fold(0_u32, |rest, byte| {
            let dividend = rest << 8 | u32::from(*byte);
            *byte = (dividend / 62) as u8;
            dividend % 62
        });
        digits.extend(ALPHABET.get(rest as usize));
    }
    digits.into_iter().rev().map(char::from).collect()
}

/// CRC-32 as zip and PNG have it (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_whole() {
        assert_eq!(base62(&[0; 32], 3), "000");
        assert_eq!(base62(&[1, 0], 3), "048");
        // 62^43 is the first power above 2^256.
        assert_eq!(base62(&[255; 32], SECRET_LENGTH + 1).as_bytes()[0], b'0');
        assert_ne!(base62(&[255; 32], SECRET_LENGTH).as_bytes()[0], b'0');
        assert_eq!(base62(&[255; 4], CHECKSUM_LENGTH), "4gfFC3");
    }

    #[test]
    fn the_checksum_is_the_one_of_everyone() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
