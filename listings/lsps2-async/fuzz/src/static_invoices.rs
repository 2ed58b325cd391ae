//! What a recipient has its LSP serve, and what the LSP's disk says it is.

use core::time::Duration;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::offers::static_invoice::StaticInvoice;
use lightning::util::ser::{Readable, Writeable};
use lsps2_async::lsp::static_invoices::{
    MAX_INVOICE_REQUEST_PATH_BYTES, MAX_STATIC_INVOICE_BYTES, RECIPIENTS_NAMESPACE,
    STATIC_INVOICES_NAMESPACE, ServerLimits, StaticInvoices,
};

use crate::feed::Feed;
use crate::now;
use crate::store::Disk;

const LIMITS: ServerLimits = ServerLimits { slots: 3, recipients: 3, recipient_id_bytes: 8 };

/// What is served was stored and has not expired; nothing is stored for strangers or beyond the
/// limits; an error changes nothing.
pub fn static_invoices(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let disk = Disk::default();
    let server = now(StaticInvoices::load(disk.clone(), LIMITS)).expect("the disk works");
    let mut understood = false;
    let mut planted = 0;
    for _ in 0..16 {
        if feed.is_over() {
            break;
        }
        let before = all(&disk);
        if feed.below(8) == 1 {
            disk.fails_after(0);
        }
        let id = feed.chunk();
        let slot = u16::from(feed.byte()) << 8 | u16::from(feed.byte());
        let time = Duration::from_secs(feed.number());
        match feed.below(4) {
            0 => {
                let registered = now(server.register_recipient(id));
                assert!(registered.is_err() || (1..=8).contains(&id.len()));
                assert!(registered.is_ok() || before == all(&disk));
            }
            1 => {
                let invoice = StaticInvoice::try_from(feed.chunk().to_vec());
                let path = BlindedMessagePath::read(&mut feed.chunk());
                let (Ok(invoice), Ok(path)) = (invoice, path) else { break };
                understood = true;
                persist(&server, &disk, (id, slot), (invoice, path), time);
            }
            2 => {
                // As somebody else would leave it there.
                let (foreign, names) = (feed.chunk(), disk.entries(RECIPIENTS_NAMESPACE));
                if let Some((_, _, name)) = names.keys().next() {
                    let key = format!("{:05}", slot % LIMITS.slots);
                    let there = disk.entries(STATIC_INVOICES_NAMESPACE).len();
                    disk.put(STATIC_INVOICES_NAMESPACE, name, &key, foreign);
                    planted += disk.entries(STATIC_INVOICES_NAMESPACE).len() - there;
                }
            }
            _ => understood |= get(&server, &disk, id, slot, time),
        }
        disk.is_repaired();
        let recipients = disk.entries(RECIPIENTS_NAMESPACE).len();
        assert!(recipients <= LIMITS.recipients);
        let invoices = disk.entries(STATIC_INVOICES_NAMESPACE).len();
        assert!(invoices <= planted + recipients * usize::from(LIMITS.slots));
    }
    understood
}

type Served = (StaticInvoice, BlindedMessagePath);

fn persist(
    server: &StaticInvoices<Disk>,
    disk: &Disk,
    (id, slot): (&[u8], u16),
    (invoice, path): Served,
    time: Duration,
) {
    let before = all(disk);
    match now(server.persist(id, slot, &invoice, &path, time)) {
        Ok(()) => {
            assert!(slot < LIMITS.slots && (1..=8).contains(&id.len()));
            assert!(invoice.serialized_length() <= MAX_STATIC_INVOICE_BYTES);
            assert!(path.serialized_length() <= MAX_INVOICE_REQUEST_PATH_BYTES);
            assert!(all(disk).1.len() <= before.1.len() + 1);
            let served = now(server.get(id, slot, time)).expect("the disk works");
            assert_eq!(served, Some((invoice, path)));
        }
        Err(_) => assert_eq!(before, all(disk)),
    }
}

/// Whether there was one.
fn get(server: &StaticInvoices<Disk>, disk: &Disk, id: &[u8], slot: u16, time: Duration) -> bool {
    let before = all(disk);
    let found = now(server.get(id, slot, time));
    assert_eq!(before, all(disk), "serving changes nothing");
    let Ok(Some((invoice, path))) = found else { return false };
    assert!(slot < LIMITS.slots);
    assert!(invoice.created_at().saturating_add(invoice.relative_expiry()) > time);
    // What is sent can be read.
    assert_eq!(StaticInvoice::try_from(invoice.encode()), Ok(invoice));
    assert_eq!(BlindedMessagePath::read(&mut &*path.encode()), Ok(path));
    true
}

type Entries = std::collections::BTreeMap<(String, String, String), Vec<u8>>;

fn all(disk: &Disk) -> (Entries, Entries) {
    (disk.entries(RECIPIENTS_NAMESPACE), disk.entries(STATIC_INVOICES_NAMESPACE))
}
