//! zlayer-server TOKEN FIRST-PORT LAST-PORT
//!
//! Serves control connections with the crate, listens for the services that it
//! registers, and takes data connections at /data/ID. ZL_HEARTBEAT is the time between
//! heartbeats, in milliseconds.

use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use zlayer_tunnel::*;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let range = (arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
    let registry = Arc::new(TunnelRegistry::new(range));
    let mut config = TunnelServerConfig::default();
    config.data_port_range = range;
    if let Ok(ms) = std::env::var("ZL_HEARTBEAT") {
        config.heartbeat_interval = Duration::from_millis(ms.parse().unwrap());
    }
    let token = arguments[1].clone();
    let handler = Arc::new(ControlHandler::new(
        registry.clone(),
        config,
        Arc::new(move |t: &str| {
            if t == token {
                Ok(())
            } else {
                Err(TunnelError::auth("wrong token"))
            }
        }),
    ));
    let manager = Arc::new(ListenerManager::new(
        registry.clone(),
        Duration::from_secs(10),
    ));
    let control = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    zlayer_programs::say(
        json!({"event": "listening", "port": control.local_addr().unwrap().port()}),
    );
    let (m, r) = (manager.clone(), registry.clone());
    tokio::spawn(async move {
        let mut open: HashMap<uuid::Uuid, (u16, bool)> = HashMap::new();
        loop {
            let mut now = HashMap::new();
            for info in r.list_tunnels() {
                if let Some(t) = r.get_tunnel(info.id) {
                    for s in t.services.iter() {
                        now.insert(
                            s.id,
                            (
                                s.name.clone(),
                                s.assigned_port.unwrap_or(s.remote_port),
                                s.protocol == ServiceProtocol::Udp,
                            ),
                        );
                    }
                }
            }
            for (id, (name, port, udp)) in &now {
                if !open.contains_key(id) {
                    let got = if *udp {
                        m.start_udp_listener(*port).await
                    } else {
                        m.start_tcp_listener(*port).await
                    };
                    match got {
                        Ok(p) => {
                            open.insert(*id, (p, *udp));
                            zlayer_programs::say(
                                json!({"event": "service", "name": name, "port": p}),
                            )
                        }
                        Err(e) => {
                            open.insert(*id, (0, *udp));
                            zlayer_programs::say(
                                json!({"event": "error", "name": name, "message": e.to_string()}),
                            )
                        }
                    }
                }
            }
            open.retain(|id, (p, udp)| {
                let k = now.contains_key(id);
                if !k {
                    if *udp {
                        m.stop_udp_listener(*p)
                    } else {
                        m.stop_tcp_listener(*p)
                    }
                }
                k
            });
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    loop {
        let (s, addr) = control.accept().await.unwrap();
        let (h, m) = (handler.clone(), manager.clone());
        tokio::spawn(async move {
            let mut buf = [0u8; 512];
            let line = loop {
                let Ok(n) = s.peek(&mut buf).await else {
                    return;
                };
                if n == 0 {
                    return;
                }
                let t = String::from_utf8_lossy(&buf[..n]).to_string();
                if let Some(i) = t.find("\r\n") {
                    break t[..i].to_string();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            };
            let path = line.split(' ').nth(1).unwrap_or("").to_string();
            if let Some(i) = path.find("/data/") {
                let Ok(id) = path[i + 6..].parse() else {
                    return;
                };
                let Ok(ws) = tokio_tungstenite::accept_async(s).await else {
                    return;
                };
                if let Some(t) = m.accept_connection(id) {
                    zlayer_programs::join(ws, t).await
                }
            } else if let Err(e) = h.handle_connection(s, addr).await {
                zlayer_programs::say(
                    json!({"event": "ended", "reason": e.to_string()}),
                );
            }
        });
    }
}
