//! A peer that is nobody's wallet and nobody's LSP, and says what a test tells it to.
//!
//! It speaks LDK's transport, and above that only what it is given: bytes for LSPS's message type, and
//! onion messages. It has no channels, no clock and no disk, so one process runs hundreds of them.

use anyhow::{Context, Result, anyhow, bail};
use bitcoin::secp256k1::{PublicKey, Secp256k1};
use lightning::blinded_path::EmptyNodeIdLookUp;
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext};
use lightning::ln::msgs::{
    BaseMessageHandler, DecodeError, Init, LightningError, MessageSendEvent, OnionMessage,
    OnionMessageHandler,
};
use lightning::ln::peer_handler::{
    self, CustomMessageHandler, ErroringMessageHandler, IgnoringMessageHandler, MessageHandler,
};
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::onion_message::messenger::{
    Destination, OnionMessagePath, PeeledOnion, create_onion_message, peel_onion_message,
};
use lightning::onion_message::packet::OnionMessageContents;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};
use lightning_net_tokio::SocketDescriptor;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::world::PATIENCE;

/// The type of LSPS's messages.
const LSPS: u16 = 37913;

type Peers = peer_handler::PeerManager<
    SocketDescriptor,
    Arc<ErroringMessageHandler>,
    IgnoringMessageHandler,
    Arc<Mouth>,
    Arc<Silence>,
    Arc<Mouth>,
    Arc<KeysManager>,
    IgnoringMessageHandler,
>;

/// What a stranger notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A connection whose handshake is over.
    Connected(PublicKey),
    /// A peer that hung up.
    Gone(PublicKey),
    /// An LSPS message, whatever is in it.
    Said(PublicKey, String),
    /// An onion message.
    Onion(Box<OnionMessage>),
}

/// The stranger.
pub struct Stranger {
    peers: Arc<Peers>,
    mouth: Arc<Mouth>,
    keys: Arc<KeysManager>,
    heard: tokio::sync::Mutex<mpsc::UnboundedReceiver<Heard>>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Stranger {
    /// The stranger of this number, which has the same key in every run.
    pub fn new(number: u16) -> Self {
        let mut seed = [0x57; 32];
        seed[..2].copy_from_slice(&number.to_be_bytes());
        let keys = Arc::new(KeysManager::new(&seed, 1, 1, true));
        let (tell, heard) = mpsc::unbounded_channel();
        let mouth = Arc::new(Mouth { tell, lsps: Mutex::default(), mail: Mutex::default() });
        let handlers = MessageHandler {
            chan_handler: Arc::new(ErroringMessageHandler::new()),
            route_handler: IgnoringMessageHandler {},
            onion_message_handler: mouth.clone(),
            custom_message_handler: mouth.clone(),
            send_only_message_handler: IgnoringMessageHandler {},
        };
        let peers = Peers::new(handlers, 1, &seed, Arc::new(Silence), keys.clone());
        let (heard, listening) = (tokio::sync::Mutex::new(heard), Mutex::default());
        Self { peers: Arc::new(peers), mouth, keys, heard, listening }
    }

    /// Its node id.
    pub fn id(&self) -> PublicKey {
        self.keys.get_node_id(Recipient::Node).expect("a node has an id")
    }

    /// An onion message over these nodes, the first of which is a peer.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn letter(
        &self,
        intermediate_nodes: &[PublicKey],
        destination: Destination,
        contents: impl OnionMessageContents,
        reply_path: Option<BlindedMessagePath>,
    ) -> Result<OnionMessage> {
        let (lookup, secp) = (EmptyNodeIdLookUp {}, Secp256k1::new());
        let intermediate_nodes = intermediate_nodes.to_vec();
        let first_node_addresses = Vec::new();
        let path = OnionMessagePath { intermediate_nodes, destination, first_node_addresses };
        let keys = &*self.keys;
        let made = create_onion_message(keys, keys, &lookup, &secp, path, contents, reply_path);
        made.map(|(_, message, _)| message).map_err(|error| anyhow!("no message: {error:?}"))
    }

    /// A path on which it is answered, by its peers.
    pub fn reply_path(&self, context: MessageContext) -> BlindedMessagePath {
        let (id, key) = (self.id(), self.keys.get_receive_auth_key());
        BlindedMessagePath::one_hop(id, key, context, false, &*self.keys, &Secp256k1::new())
    }

    /// Reads an onion message that is for it.
    ///
    /// # Errors
    /// If it is not.
    pub fn read(&self, message: &OnionMessage) -> Result<PeeledOnion<std::convert::Infallible>> {
        let (secp, keys) = (Secp256k1::new(), &*self.keys);
        peel_onion_message(message, &secp, keys, &Silence, IgnoringMessageHandler {})
            .map_err(|()| anyhow!("the message is for somebody else"))
    }

    /// Connects, and waits for the other's greeting.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn connect(&self, id: PublicKey, address: SocketAddr) -> Result<()> {
        let connection = lightning_net_tokio::connect_outbound(self.peers.clone(), id, address);
        let connection = connection.await.context("nobody listens there")?;
        drop(tokio::spawn(connection));
        match self.hear().await? {
            Heard::Connected(_) => Ok(()),
            other => bail!("{other:?} in place of a greeting"),
        }
    }

    /// Takes connections, for as long as it is there. The address.
    ///
    /// # Errors
    /// If the machine has no port left.
    pub async fn listen(&self) -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, peers) = (listener.local_addr()?, self.peers.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = stream.into_std() else { continue };
                drop(tokio::spawn(lightning_net_tokio::setup_inbound(peers.clone(), stream)));
            }
        });
        *self.listening.lock().expect("no panic with it locked") = Some(task);
        Ok(address)
    }

    /// Says this in an LSPS message: JSON or not, text or not.
    pub fn say(&self, to: PublicKey, payload: impl Into<Vec<u8>>) {
        self.mouth.lsps.lock().expect("no panic with it locked").push((to, payload.into()));
        self.peers.process_events();
    }

    /// Sends onion messages to a peer, as fast as it takes them.
    pub fn post(&self, messages: impl IntoIterator<Item = OnionMessage>) {
        self.mouth.mail.lock().expect("no panic with it locked").extend(messages);
        self.peers.process_events();
    }

    /// How many onion messages the peer has not taken yet.
    pub fn unsent(&self) -> usize {
        self.peers.process_events();
        self.mouth.mail.lock().expect("no panic with it locked").len()
    }

    /// The next thing it notices.
    ///
    /// # Errors
    /// If there is nothing for a long time.
    pub async fn hear(&self) -> Result<Heard> {
        let mut heard = self.heard.lock().await;
        let next = tokio::time::timeout(PATIENCE, heard.recv()).await;
        next.context("nothing was heard")?.context("the stranger has gone")
    }

    /// Says something and hears the answer. `None` if the other hangs up instead.
    ///
    /// # Errors
    /// If there is neither for a long time.
    pub async fn ask(
        &self,
        peer: PublicKey,
        payload: impl Into<Vec<u8>>,
    ) -> Result<Option<String>> {
        self.say(peer, payload);
        match self.hear().await? {
            Heard::Said(_, answer) => Ok(Some(answer)),
            Heard::Gone(_) => Ok(None),
            other => bail!("{other:?} in place of an answer"),
        }
    }

    /// Hangs up.
    pub fn hang_up(&self) {
        self.peers.disconnect_all_peers();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.peers.disconnect_all_peers();
        if let Some(task) = self.listening.lock().expect("no panic with it locked").take() {
            task.abort();
        }
    }
}

/// What it has to say, and whom it tells what it hears.
struct Mouth {
    tell: mpsc::UnboundedSender<Heard>,
    lsps: Mutex<Vec<(PublicKey, Vec<u8>)>>,
    mail: Mutex<VecDeque<OnionMessage>>,
}

impl Mouth {
    fn tell(&self, heard: Heard) {
        // Fails only once nobody listens any more.
        let _ = self.tell.send(heard);
    }
}

/// The bytes of an LSPS message.
#[derive(Debug)]
struct Saying(Vec<u8>);

impl Writeable for Saying {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), lightning::io::Error> {
        writer.write_all(&self.0)
    }
}

impl Type for Saying {
    fn type_id(&self) -> u16 {
        LSPS
    }
}

impl CustomMessageReader for Mouth {
    type CustomMessage = Saying;

    fn read<R: LengthLimitedRead>(
        &self,
        message_type: u16,
        buffer: &mut R,
    ) -> Result<Option<Saying>, DecodeError> {
        if message_type != LSPS {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(buffer.remaining_bytes()).unwrap_or(0)];
        buffer.read_exact(&mut bytes).map_err(|_| DecodeError::ShortRead)?;
        Ok(Some(Saying(bytes)))
    }
}

impl CustomMessageHandler for Mouth {
    fn handle_custom_message(&self, said: Saying, from: PublicKey) -> Result<(), LightningError> {
        self.tell(Heard::Said(from, String::from_utf8_lossy(&said.0).into_owned()));
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Saying)> {
        let mut waiting = self.lsps.lock().expect("no panic with it locked");
        waiting.drain(..).map(|(to, bytes)| (to, Saying(bytes))).collect()
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.tell(Heard::Gone(peer));
    }

    fn peer_connected(&self, peer: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        self.tell(Heard::Connected(peer));
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

impl BaseMessageHandler for Mouth {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        Vec::new()
    }

    fn peer_disconnected(&self, _: PublicKey) {}

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        let mut features = InitFeatures::empty();
        features.set_onion_messages_optional();
        features
    }

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        Ok(())
    }
}

impl OnionMessageHandler for Mouth {
    fn handle_onion_message(&self, _: PublicKey, message: &OnionMessage) {
        self.tell(Heard::Onion(Box::new(message.clone())));
    }

    fn next_onion_message_for_peer(&self, _: PublicKey) -> Option<OnionMessage> {
        self.mail.lock().expect("no panic with it locked").pop_front()
    }

    fn timer_tick_occurred(&self) {}
}

/// It keeps no log.
struct Silence;

impl Logger for Silence {
    fn log(&self, _: Record) {}
}
