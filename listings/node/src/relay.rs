//! How a node sends onion messages: directly, or through its LSP once it has one.

use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::onion_message::messenger::{
    DefaultMessageRouter, Destination, MessageRouter, OnionMessagePath,
};
use lightning::sign::{KeysManager, ReceiveAuthKey};
use lsps2_async::router::LspMessageRouter;
use std::sync::{Arc, RwLock};

use crate::types::{Graph, Log};

type Direct = DefaultMessageRouter<Arc<Graph>, Arc<Log>, Arc<KeysManager>>;

/// LDK's message router, behind the LSP where there is one.
pub struct Relay {
    direct: Direct,
    lsp: RwLock<Option<PublicKey>>,
}

impl Relay {
    pub(crate) fn new(graph: Arc<Graph>, keys: Arc<KeysManager>) -> Self {
        Self { direct: DefaultMessageRouter::new(graph, keys), lsp: RwLock::new(None) }
    }

    /// From now on, messages for nodes that are not peers go through this LSP.
    pub(crate) fn set_lsp(&self, lsp_node_id: PublicKey) {
        *self.lsp.write().unwrap() = Some(lsp_node_id);
    }
}

impl MessageRouter for Relay {
    fn find_path(
        &self,
        sender: PublicKey,
        peers: Vec<PublicKey>,
        destination: Destination,
    ) -> Result<OnionMessagePath, ()> {
        match *self.lsp.read().unwrap() {
            Some(lsp) => {
                LspMessageRouter::new(&self.direct, lsp).find_path(sender, peers, destination)
            }
            None => self.direct.find_path(sender, peers, destination),
        }
    }

    fn create_blinded_paths<S: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        context: MessageContext,
        peers: Vec<MessageForwardNode>,
        secp_ctx: &Secp256k1<S>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        self.direct.create_blinded_paths(recipient, key, context, peers, secp_ctx)
    }
}
