//! Connections: taking them, making them, and making them again after a restart.

use anyhow::{Context, Result, bail};
use bitcoin::secp256k1::PublicKey;
use lightning::io::ErrorKind;
use lightning::ln::msgs::SocketAddress;
use lightning::util::persist::KVStoreSync;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

use crate::node::Node;
use crate::transcript::What;

const NAMESPACE: &str = "peers";
const HANDSHAKE: Duration = Duration::from_secs(10);

impl Node {
    pub(crate) async fn accept_peers(self: Arc<Self>, listener: TcpListener) {
        let mut stopping = self.stopping.subscribe();
        loop {
            let taken = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                taken = listener.accept() => taken,
            };
            let Ok((stream, _)) = taken else {
                // Out of file descriptors, say: others have to close theirs first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(stream) = stream.into_std() else { continue };
            // The connection lives in tasks of its own until the peer goes.
            drop(tokio::spawn(lightning_net_tokio::setup_inbound(
                self.peer_manager.clone(),
                stream,
            )));
        }
    }

    /// Connects to a peer and remembers it: it is connected again whenever it is missing.
    pub async fn connect(&self, node_id: PublicKey, address: SocketAddr) -> Result<()> {
        let key = node_id.to_string();
        self.store.write(NAMESPACE, "", &key, address.to_string().into_bytes())?;
        self.connect_once(node_id, address).await
    }

    /// Disconnects a peer and forgets it.
    pub fn disconnect(&self, node_id: &PublicKey) -> Result<()> {
        self.store.remove(NAMESPACE, "", &node_id.to_string(), false)?;
        self.peer_manager.disconnect_by_node_id(*node_id);
        Ok(())
    }

    /// Whether a peer is connected and its handshake is over.
    pub fn is_connected(&self, node_id: &PublicKey) -> bool {
        self.peer_manager.peer_by_node_id(node_id).is_some()
    }

    async fn connect_once(&self, node_id: PublicKey, address: SocketAddr) -> Result<()> {
        let connected = self.connect_in_turn(node_id, address).await;
        // Strangers name as many nodes as they like: nothing is kept for those nobody waits for.
        let mut connecting = self.connecting.lock().unwrap();
        connecting.retain(|_, turn| Arc::strong_count(turn) > 1);
        connected
    }

    async fn connect_in_turn(&self, node_id: PublicKey, address: SocketAddr) -> Result<()> {
        // One at a time for each peer: of two connections to it, both might be dropped.
        let turn = self.connecting.lock().unwrap().entry(node_id).or_default().clone();
        let _turn = turn.lock().await;
        if self.is_connected(&node_id) {
            return Ok(());
        }
        let transcript = self.pen.transcript.clone();
        let (from, peer) = (transcript.position(), self.name_of(&node_id));
        let connection =
            lightning_net_tokio::connect_outbound(self.peer_manager.clone(), node_id, address)
                .await
                .with_context(|| format!("{address} does not answer: is the node running?"))?;
        let greeted = transcript.wait_for(from, HANDSHAKE, |entry| {
            let connected = matches!(&entry.what, What::Connected { peer: p } if *p == peer);
            (connected && entry.node == self.pen.name).then_some(())
        });
        tokio::select! {
            greeted = greeted => greeted.map_err(|_| anyhow::anyhow!("{address} does not greet")),
            () = connection => bail!("{address} hung up: is {node_id} its node id?"),
        }
    }

    /// Connects the remembered peers that are missing.
    async fn reconnect(&self) {
        let known = self.store.list(NAMESPACE, "").unwrap_or_default();
        for key in known {
            let Ok(node_id) = key.parse::<PublicKey>() else {
                continue;
            };
            if self.is_connected(&node_id) {
                continue;
            }
            let Ok(Some(address)) = self.remembered(&key) else {
                continue;
            };
            // A peer that is away is tried again at the next tick.
            let _ = self.connect_once(node_id, address).await;
        }
    }

    fn remembered(&self, key: &str) -> Result<Option<SocketAddr>> {
        match self.store.read(NAMESPACE, "", key) {
            Ok(bytes) => Ok(Some(std::str::from_utf8(&bytes)?.parse()?)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Answers `ConnectionNeeded`: LDK has an onion message for a node that is not a peer.
    ///
    /// A stranger chooses the addresses, and LDK's loop must not wait for them: it would write
    /// nothing and handle no event meanwhile. So this returns at once, and there are few at a time.
    pub(crate) fn connect_in_background(
        self: Arc<Self>,
        node_id: PublicKey,
        addresses: Vec<SocketAddress>,
    ) {
        const MOST_ADDRESSES: usize = 3;
        let Ok(turn) = self.strangers.clone().try_acquire_owned() else { return };
        tokio::spawn(async move {
            for address in addresses.iter().take(MOST_ADDRESSES) {
                let resolved = tokio::net::lookup_host(address.to_string()).await;
                let first = resolved.ok().and_then(|mut addresses| addresses.next());
                let Some(address) = first else { continue };
                if self.connect_once(node_id, address).await.is_ok() {
                    break;
                }
            }
            drop(turn);
        });
    }

    /// Connects missing peers, for as long as the node runs.
    pub(crate) async fn keep_connected(self: Arc<Self>) {
        self.until_stopped(async {
            let mut every_second = tokio::time::interval(Duration::from_secs(1));
            loop {
                every_second.tick().await;
                self.reconnect().await;
            }
        })
        .await;
    }
}
