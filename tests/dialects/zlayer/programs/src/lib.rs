//! What the server and the client of these programs share: JSON lines, and joining a
//! WebSocket of data with a local connection.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::{tungstenite::Message as Ws, WebSocketStream};

pub fn say(v: serde_json::Value) {
    use std::io::Write;
    let mut o = std::io::stdout().lock();
    writeln!(o, "{v}").unwrap();
    o.flush().unwrap();
}

pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    ws: WebSocketStream<S>,
    tcp: TcpStream,
) {
    let (mut sink, mut stream) = ws.split();
    let (mut r, mut w) = tcp.into_split();
    let out = async {
        let mut buf = vec![0; 32768];
        loop {
            match r.read(&mut buf).await {
                Ok(n) if n > 0 => {
                    if sink
                        .send(Ws::Binary(buf[..n].to_vec().into()))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                _ => break,
            }
        }
        let _ = sink.close().await;
    };
    let inn = async {
        while let Some(Ok(m)) = stream.next().await {
            match m {
                Ws::Binary(d) => {
                    if w.write_all(&d).await.is_err() {
                        break;
                    }
                }
                Ws::Close(_) => break,
                _ => {}
            }
        }
        let _ = w.shutdown().await;
    };
    tokio::join!(out, inn);
}

pub async fn join_udp<S: AsyncRead + AsyncWrite + Unpin>(
    ws: WebSocketStream<S>,
    udp: UdpSocket,
) {
    let (mut sink, mut stream) = ws.split();
    let mut buf = vec![0; 65536];
    loop {
        tokio::select! {
            m = stream.next() => match m { Some(Ok(Ws::Binary(d))) => { let _ = udp.send(&d).await; } Some(Ok(Ws::Ping(_))) => {} _ => return },
            n = udp.recv(&mut buf) => if let Ok(n) = n { if sink.send(Ws::Binary(buf[..n].to_vec().into())).await.is_err() { return } },
        }
    }
}
