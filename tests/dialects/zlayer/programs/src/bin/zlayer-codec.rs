//! Reads messages in hexadecimal, a line each; prints what the crate writes for them, how
//! many bytes it read, and what it understood; or "error", and why.

use std::io::{BufRead, Write};
use zlayer_tunnel::Message;

fn main() {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let data = hex::decode(line.unwrap().trim()).unwrap();
        match Message::decode(&data) {
            Ok((m, n)) => {
                writeln!(out, "{} {} {:?}", hex::encode(m.encode()), n, m).unwrap()
            }
            Err(e) => writeln!(
                out,
                "error {} {}",
                data.len(),
                e.to_string().replace('\n', " ")
            )
            .unwrap(),
        }
        out.flush().unwrap();
    }
}
