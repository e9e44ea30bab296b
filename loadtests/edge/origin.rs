//! The service behind the gateway: HTTP/1.1, kept connections, bodies of three sizes.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Bytes of the bodies that are answered.
const SMALL: usize = 100;
const LARGE: usize = 64 << 10;
const HUGE: usize = 1 << 20;

struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
    huge: Vec<u8>,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener) {
    let answers = Arc::new(Answers { small: answer(SMALL), large: answer(LARGE), huge: answer(HUGE) });
    while let Ok((stream, _)) = listener.accept().await {
        let answers = answers.clone();
        tokio::spawn(async move { visit(stream, &answers).await });
    }
}

fn answer(length: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

async fn visit(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(8 << 10);
    loop {
        read.clear();
        let path = loop {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                // A body is chunked, and its last chunk is the end.
                if read.starts_with(b"POST") {
                    let body = read.split_off(end + 4);
                    drain(&mut stream, body).await?;
                }
                break read.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
            }
        };
        let answer = match path {
            b"/large" => &answers.large,
            b"/huge" => &answers.huge,
            _ => &answers.small,
        };
        stream.write_all(answer).await?;
    }
}

async fn drain(stream: &mut TcpStream, mut body: Vec<u8>) -> io::Result<()> {
    while !body.ends_with(b"0\r\n\r\n") {
        if body.len() > 4096 {
            body.drain(..body.len() - 5);
        }
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
