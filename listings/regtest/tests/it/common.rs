//! A small wallet and the chains under test.

use std::net::SocketAddr;
use std::path::PathBuf;

use bitcoin::absolute::LockTime;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::{All, Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    transaction,
};
use lightning_block_sync::{BlockData, BlockSource};
use regtest::{Chain, EmbeddedChain, RpcAuth};

/// A fee which any node relays for the small transactions here, in sat.
pub const FEE: u64 = 10_000;

/// A chain with what it needs to live as long as the test.
pub struct Backend {
    pub chain: Chain,
}

impl Backend {
    pub async fn embedded() -> Option<Backend> {
        Some(Backend { chain: Chain::embedded() })
    }

    /// An embedded chain which the test reaches only through RPC.
    pub async fn served() -> Option<Backend> {
        let (user, password) = ("user".to_owned(), "password".to_owned());
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let served = regtest::serve(EmbeddedChain::new(), listen, user.clone(), password.clone());
        let (addr, server) = served.await.expect("the server starts");
        tokio::spawn(server);
        let auth = RpcAuth::UserPass(user, password);
        let chain = Chain::rpc(&addr.to_string(), auth).await.expect("the server answers");
        Some(Backend { chain })
    }

    /// Bitcoin Core, if the variable `BITCOIND_EXE` names it.
    pub async fn bitcoind() -> Option<Backend> {
        let Some(exe) = std::env::var_os("BITCOIND_EXE") else {
            eprintln!("SKIPPED: set BITCOIND_EXE to a bitcoind to run this test");
            return None;
        };
        let chain = Chain::bitcoind_temporary(&PathBuf::from(exe)).await;
        Some(Backend { chain: chain.expect("BITCOIND_EXE names a bitcoind that works") })
    }
}

/// One key and its P2WPKH script.
pub struct Wallet {
    secp: Secp256k1<All>,
    secret: SecretKey,
    public: CompressedPublicKey,
}

impl Wallet {
    pub fn new() -> Wallet {
        let secp = Secp256k1::new();
        let secret = SecretKey::from_slice(&[7; 32]).expect("a valid key");
        let public = CompressedPublicKey(secret.public_key(&secp));
        Wallet { secp, secret, public }
    }

    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    /// Spends one output of this wallet to itself, signed.
    pub fn spend(&self, coin: &Spendable, change: impl FnOnce(&mut Transaction)) -> Transaction {
        let mut tx = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: coin.value - Amount::from_sat(FEE),
                script_pubkey: self.script(),
            }],
        };
        change(&mut tx);
        self.sign(&mut tx, std::slice::from_ref(coin));
        tx
    }

    pub fn sign(&self, tx: &mut Transaction, coins: &[Spendable]) {
        for (index, coin) in coins.iter().enumerate() {
            let sighash = SighashCache::new(&*tx)
                .p2wpkh_signature_hash(index, &self.script(), coin.value, EcdsaSighashType::All)
                .expect("a P2WPKH input");
            let signature = self.secp.sign_ecdsa(&Message::from(sighash), &self.secret);
            let signature = bitcoin::ecdsa::Signature::sighash_all(signature);
            tx.input[index].witness = Witness::p2wpkh(&signature, &self.public.0);
        }
    }
}

/// An output with its value.
#[derive(Clone, Debug)]
pub struct Spendable {
    pub outpoint: OutPoint,
    pub value: Amount,
}

impl Spendable {
    pub fn of(tx: &Transaction, vout: u32) -> Spendable {
        let outpoint = OutPoint::new(tx.compute_txid(), vout);
        Spendable { outpoint, value: tx.output[vout as usize].value }
    }
}

/// A full block.
pub async fn block(chain: &Chain, hash: &BlockHash) -> bitcoin::Block {
    match chain.get_block(hash).await.expect("the block exists") {
        BlockData::FullBlock(block) => block,
        BlockData::HeaderOnly(_) => panic!("both chains have full blocks"),
    }
}

/// Mines until the coinbases of the first `coins` blocks can be spent, and returns them.
pub async fn mature_coins(chain: &Chain, wallet: &Wallet, coins: u32) -> Vec<Spendable> {
    let blocks = chain.mine(100 + coins, &wallet.script()).await.expect("mining works");
    let mut spendable = Vec::new();
    for hash in &blocks[..coins as usize] {
        spendable.push(Spendable::of(&block(chain, hash).await.txdata[0], 0));
    }
    spendable
}
