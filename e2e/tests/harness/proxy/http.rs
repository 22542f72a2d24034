//! As much of HTTP as the proxy has to understand: where heads and bodies end.

use std::io::{BufRead, Read, Result, Write};

use super::Request;

/// The lines up to the empty one that ends a head. None at the end of the connection.
pub fn read_head(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// The request that `head` begins.
pub fn parse(head: &str) -> Request {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    let unversioned = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    Request::new(method, unversioned.unwrap_or(path))
}

/// Whether `head` asks for the connection to become a stream of both.
pub fn upgrades(head: &str) -> bool {
    header(head, "upgrade").is_some()
}

/// The head with the wish that the connection ends behind the answer.
pub fn closing(head: &str) -> String {
    let lines = head.trim_end().lines();
    let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    kept.map(|line| format!("{line}\r\n")).collect::<String>() + "Connection: close\r\n\r\n"
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value.trim()))
}

/// Passes on the body that `head` announces, whole.
pub fn pass_body(head: &str, from: &mut impl BufRead, to: &mut impl Write) -> Result<()> {
    if let Some(length) = header(head, "content-length").and_then(|text| text.parse().ok()) {
        std::io::copy(&mut from.take(length), to)?;
    } else if header(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        while pass_chunk(from, to)? > 0 {}
    }
    to.flush()
}

/// Passes on one chunk with its frame and returns its size; 0 is the last one.
fn pass_chunk(from: &mut impl BufRead, to: &mut impl Write) -> Result<u64> {
    let mut frame = String::new();
    from.read_line(&mut frame)?;
    let size = u64::from_str_radix(frame.trim().split(';').next().unwrap_or_default(), 16)
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
    to.write_all(frame.as_bytes())?;
    // The chunk and the line end behind it; no client of ours sends trailers.
    std::io::copy(&mut from.take(size + 2), to)?;
    Ok(size)
}
