//! zlayer-client URL TOKEN NAME:tcp|udp:LOCAL-PORT:REMOTE-PORT ...
//!
//! Offers services with the crate, and opens a data connection at URL/data/ID for each
//! connection that it is told. ZL_RECONNECT is its wait between tries, in milliseconds.

use serde_json::json;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket};
use zlayer_tunnel::*;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let url = arguments[1].clone();
    let mut config = TunnelClientConfig::new(url.clone(), arguments[2].clone());
    if let Ok(ms) = std::env::var("ZL_RECONNECT") {
        config.reconnect_interval = Duration::from_millis(ms.parse().unwrap());
    }
    for text in &arguments[3..] {
        let parts: Vec<&str> = text.split(':').collect();
        let (local, remote) = (parts[2].parse().unwrap(), parts[3].parse().unwrap());
        let mut service = if parts[1] == "udp" {
            ServiceConfig::udp(parts[0], local)
        } else {
            ServiceConfig::tcp(parts[0], local)
        };
        if remote != 0 {
            service = service.with_remote_port(remote);
        }
        config = config.with_service(service);
    }
    let (tx, mut rx) = tokio::sync::mpsc::channel(1000);
    let cell: Arc<OnceLock<Arc<TunnelAgent>>> = Arc::new(OnceLock::new());
    let known = cell.clone();
    let agent = TunnelAgent::new(config)
        .with_event_channel(tx)
        .on_connection(Arc::new(move |sid, cid, _addr| {
            let agent = known.get().unwrap();
            let Some(s) = agent
                .services()
                .into_iter()
                .find(|s| s.service_id == Some(sid))
            else {
                return false;
            };
            let port = s.config.local_port;
            let data = format!("{url}/data/{cid}");
            if s.config.protocol == ServiceProtocol::Udp {
                tokio::spawn(async move {
                    let u = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                    u.connect(("127.0.0.1", port)).await.unwrap();
                    if let Ok((ws, _)) = tokio_tungstenite::connect_async(data).await {
                        zlayer_programs::join_udp(ws, u).await
                    }
                });
                return true;
            }
            let Ok(t) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
                return false;
            };
            t.set_nonblocking(true).unwrap();
            let t = TcpStream::from_std(t).unwrap();
            tokio::spawn(async move {
                if let Ok((ws, _)) = tokio_tungstenite::connect_async(data).await {
                    zlayer_programs::join(ws, t).await
                }
            });
            true
        }));
    let agent = Arc::new(agent);
    let _ = cell.set(agent.clone());
    tokio::spawn(async move {
        while let Some(e) = rx.recv().await {
            zlayer_programs::say(match e {
                ControlEvent::Authenticated { .. } => json!({"event": "authenticated"}),
                ControlEvent::ServiceRegistered { name, .. } => {
                    json!({"event": "registered", "name": name})
                }
                ControlEvent::ServiceFailed { name, reason } => {
                    json!({"event": "failed", "name": name, "reason": reason})
                }
                ControlEvent::Heartbeat { .. } => json!({"event": "heartbeat"}),
                ControlEvent::Disconnected { reason } => {
                    json!({"event": "disconnected", "reason": reason})
                }
                ControlEvent::Error { message } => {
                    json!({"event": "error", "message": message})
                }
                ControlEvent::IncomingConnection { .. } => json!({"event": "incoming"}),
            });
        }
    });
    match agent.run().await {
        Ok(()) => zlayer_programs::say(json!({"event": "over"})),
        Err(e) => {
            zlayer_programs::say(json!({"event": "over", "reason": e.to_string()}))
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
}
