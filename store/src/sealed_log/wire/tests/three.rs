//! Three servers: more replicas, a leader that is lost, a majority that is lost.

use std::net::TcpListener as StdListener;
use std::time::Duration;

use super::server::Server;
use super::{Wire, WireError, WireOptions, entry, until};
use crate::sealed_log::wire::PublishError;

/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(2);

struct Three {
    servers: Vec<Server>,
    wire: Wire,
}

/// Three servers that agree, and the log's stream on one of them.
async fn three() -> Three {
    let free = [0; 3].map(|_| StdListener::bind("127.0.0.1:0").unwrap());
    let ports = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
    drop(free);
    let routes = ports.map(|port| format!("nats-route://127.0.0.1:{port}")).join(", ");
    let mut servers = Vec::new();
    for (number, port) in ports.into_iter().enumerate() {
        let config = format!(
            "server_name: n{number}
            jetstream {{ store_dir: $FOLDER }}
            cluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}], no_advertise: true, pool_size: -1 }}"
        );
        servers.push(Server::with(&config).await);
    }
    let options =
        WireOptions { servers: servers.iter().map(Server::url).collect(), identity: None, ca: None };
    let wire = Wire::connect(&options).await.unwrap();
    until("the stream", async || wire.create(1).await.is_ok()).await;
    Three { servers, wire }
}

impl Three {
    /// Has the stream kept by all three.
    async fn spread(&self) {
        until("three replicas to be wanted", async || match self.wire.info().await {
            Ok(info) => self.wire.raise_replicas(&info, 3).await.is_ok(),
            Err(_) => false,
        })
        .await;
        until("three replicas", async || {
            self.wire.info().await.is_ok_and(|info| info.check(3).is_ok() && info.current_replicas() == 3)
        })
        .await;
    }

    async fn leader(&self) -> usize {
        let name = self.wire.info().await.unwrap().leader.unwrap();
        name.trim_start_matches('n').parse().unwrap()
    }
}

#[tokio::test]
async fn replicas_are_raised_in_place() {
    let three = three().await;
    assert_eq!(three.wire.publish(&[entry("a", "1")], 0, ATTEMPT).await, Ok(1));
    let before = three.wire.info().await.unwrap();
    assert_eq!((before.wanted_replicas(), before.current_replicas()), (Some(1), 1));
    three.spread().await;
    let after = three.wire.info().await.unwrap();
    assert_eq!((after.last_sequence, after.replicas.len()), (1, 2));
    let error = three.wire.raise_replicas(&three.wire.info().await.unwrap(), 1).await.unwrap_err();
    assert!(matches!(&error, WireError::Settings(error) if error.setting == "num_replicas"), "{error:?}");
}

#[tokio::test]
async fn what_is_acknowledged_survives_the_leader() {
    const COUNT: u64 = 60;
    let mut three = three().await;
    three.spread().await;
    let wire = three.wire.clone();
    let follower = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < usize::try_from(COUNT).unwrap() {
            let from = u64::try_from(seen.len()).unwrap() + 1;
            let Ok(mut tail) = wire.tail(from).await else { continue };
            while let Ok(raws) = tail.next().await {
                seen.extend(raws.into_iter().map(|raw| (raw.sequence, raw.subject)));
                if seen.len() >= usize::try_from(COUNT).unwrap() {
                    break;
                }
            }
        }
        seen
    });
    let mut last = 0;
    while last < COUNT {
        if last == COUNT / 2 {
            let leader = three.leader().await;
            three.servers[leader].kill();
        }
        // Written again and again until it stands: at its place nothing else can.
        let at = last + 1;
        until("the entry", async || {
            match three.wire.publish(&[entry(&format!("n{at}"), "x")], last, ATTEMPT).await {
                Ok(stored) => stored == at,
                Err(PublishError::WrongLastSequence) => {
                    three.wire.info().await.is_ok_and(|info| info.last_sequence == at)
                }
                Err(PublishError::NotStored { .. } | PublishError::Unknown { .. }) => false,
                Err(error) => panic!("{error:?}"),
            }
        })
        .await;
        last = at;
    }
    let seen = tokio::time::timeout(super::DEADLINE, follower).await.unwrap().unwrap();
    assert!(seen.into_iter().eq((1..=COUNT).map(|at| (at, format!("$KV.UNIBUS_control.n{at}")))));
}

#[tokio::test]
async fn without_a_majority_nothing_is_acknowledged() {
    let mut three = three().await;
    three.spread().await;
    assert_eq!(three.wire.publish(&[entry("a", "1")], 0, ATTEMPT).await, Ok(1));
    let leader = three.leader().await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    for down in [one, other] {
        three.servers[down].kill();
    }
    until("the loss to be seen", async || match three.wire.info().await {
        Ok(info) => info.leader.is_none() || info.current_replicas() < 2,
        Err(error) => matches!(error, WireError::NoQuorum { .. }),
    })
    .await;
    let refused = three.wire.publish(&[entry("a", "2")], 1, ATTEMPT).await.unwrap_err();
    assert!(matches!(refused, PublishError::Unknown { .. } | PublishError::NotStored { .. }), "{refused:?}");
    for up in [one, other] {
        three.servers[up].restart().await;
    }
    // Stored late, or now: once.
    until("the majority", async || match three.wire.publish(&[entry("a", "2")], 1, ATTEMPT).await {
        Ok(2) => true,
        Err(PublishError::WrongLastSequence) => {
            three.wire.info().await.is_ok_and(|info| info.last_sequence == 2)
        }
        _ => false,
    })
    .await;
    assert_eq!(&three.wire.get(2).await.unwrap().unwrap().payload[..], b"2");
}
