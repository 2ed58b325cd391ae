//! The page of the hold in a real Chromium: the form says what the crate says.

use crate::browser::{ACCESSIBLE, Browser, DESKTOP, OVERFLOW, PHONE, axe, texts};
use fantoccini::key::Key;
use serde_json::{Value, json};

const PAGE: &str = "hold.html";

/// Every point of the table: what goes into the form, and what has to come out. Groups of digits may
/// be parted by either space.
const POINTS: &str = "
    const plain = (text) => text.replace(/\\u00a0/g, ' ');
    return [...document.querySelectorAll('.hold tr[data-extra]')].map((row) => {
        const { payer, height, extra, lease, hop, shadow, left, window, back, given, most } = row.dataset;
        const [, away, ends] = [...row.cells].map((cell) => plain(cell.textContent));
        return {
            into: { payer, height, extra, lease, hop, shadow, left },
            out: { away, ends, window: plain(window), back: plain(back), given: plain(given), most: plain(most) },
        };
    });";

/// Types these values, and says what the form answers and complains of.
fn fill(values: &Value) -> String {
    format!(
        "for (const [name, value] of Object.entries({values})) {{
             const input = document.getElementById('hold-' + name);
             input.value = value;
             input.dispatchEvent(new Event('input', {{ bubbles: true }}));
         }}
         {ANSWER}"
    )
}

const ANSWER: &str = "
    const text = (name) => document.getElementById('hold-' + name).textContent.replace(/\\u00a0/g, ' ');
    return {
        out: Object.fromEntries(['away', 'ends', 'window', 'back', 'given', 'most'].map((name) => [name, text(name)])),
        wrong: [...document.querySelectorAll('#hold .wrong')].map((p) => p.textContent).filter((wrong) => wrong),
        marked: [...document.querySelectorAll('#hold [aria-invalid]')].map((input) => input.name),
    };";

#[tokio::test]
async fn the_form_says_what_the_table_says_at_every_point() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    let points = browser.eval(POINTS).await.as_array().unwrap().clone();
    assert!(points.len() > 20, "{points:?}");
    // What stands in the form before anybody types is one of them.
    let first = browser.eval(ANSWER).await;
    assert!(points.iter().any(|point| point["out"] == first["out"]), "{first}");
    for point in &points {
        let told = browser.eval(&fill(&point["into"])).await;
        assert_eq!(told["out"], point["out"], "{}", point["into"]);
        assert_eq!(told["wrong"], json!([]), "{}", point["into"]);
    }
    let ends = points.iter().map(|point| point["out"]["ends"].as_str().unwrap());
    let ends: std::collections::BTreeSet<_> = ends.collect();
    assert_eq!(ends.len(), 4, "each way to end is in the table: {ends:?}");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_field_that_holds_no_number_is_marked_and_nothing_is_computed() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    let good = json!({
        "payer": "held", "height": "880 000", "hop": "72", "shadow": "0", "extra": "144", "lease": "72",
        "left": "672",
    });
    let right = browser.eval(&fill(&good)).await;
    assert_eq!(right["out"]["away"], "1 d 30 min");
    let whole = "A whole number, without a sign or a unit.";
    let none = json!({
        "away": "—", "ends": "see the field that is marked", "window": "—", "back": "—", "given": "—",
        "most": "—",
    });
    for (field, typed, wrong) in [
        ("height", "", "Type a number."),
        ("extra", "-1", whole),
        ("extra", "1.5", whole),
        ("left", "28 days", whole),
        ("shadow", "433", "At most 432."),
        ("extra", "65536", "At most 65\u{a0}535."),
    ] {
        let told = browser.eval(&fill(&json!({ field: typed }))).await;
        assert_eq!(told["wrong"], json!([wrong]), "{field}: {typed}");
        assert_eq!(told["marked"], json!([field]), "{field}: {typed}");
        assert_eq!(told["out"], none, "{field}: {typed}");
        // Put right, the answer is back.
        assert_eq!(browser.eval(&fill(&good)).await, right, "{field}: {typed}");
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_keyboard_is_enough_on_a_phone_and_on_a_desktop() {
    let Some(browser) = Browser::open().await else { return };
    let key = |key: Key| String::from(char::from(key));
    let all = format!("{}a{}", key(Key::Control), key(Key::Null));
    for screen in [PHONE, DESKTOP] {
        browser.at(screen).await;
        browser.go(PAGE).await;
        browser.eval("document.getElementById('hold-payer').focus();").await;
        // The first letters of what is chosen.
        browser.press("it").await;
        browser.until("document.getElementById('hold-payer').value === 'online'").await;
        browser.until("document.getElementById('hold-away').textContent === '7\\u00a0d'").await;
        browser.press("its").await;
        browser.eval("document.getElementById('hold-payer').value = 'held';").await;
        browser.press(&key(Key::Tab)).await;
        for (name, typed) in [
            ("height", "900000"),
            ("hop", "72"),
            ("shadow", "120"),
            ("extra", "0"),
            ("lease", "72"),
        ] {
            let at = browser.eval("return document.activeElement.name;").await;
            assert_eq!(at, name);
            browser.press(&all).await;
            browser.press(typed).await;
            browser.press(&key(Key::Tab)).await;
        }
        browser.press(&all).await;
        // Enter computes nothing new, and leads nowhere.
        browser.press(&format!("672{}", key(Key::Enter))).await;
        browser.until("document.getElementById('hold-back').textContent === '900\\u00a0123'").await;
        let set = browser.eval("return document.getElementById('hold-height').value;").await;
        assert_eq!(set, "900\u{a0}000", "a number that was left is set in groups");
        browser.eval("document.querySelectorAll('.hold caption button')[5].focus();").await;
        browser.press(&key(Key::Enter)).await;
        browser.until("document.activeElement.id === 'hold-extra'").await;
        let told = browser.eval(ANSWER).await;
        assert_eq!(told["out"]["away"], "1 d", "a payer that waits online, and a lease of a day");
        assert_eq!(browser.eval(OVERFLOW).await, json!([]), "{}", screen.name);
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

/// A form full of complaints is as legible as an empty one.
#[tokio::test]
async fn complaints_are_legible_in_light_and_dark() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(PHONE).await;
    for scheme in ["light", "dark"] {
        browser.in_colours(scheme).await;
        browser.go(PAGE).await;
        let wrong =
            json!({ "height": "-", "hop": "", "shadow": "433", "extra": "x", "lease": "1" });
        let told = browser.eval(&fill(&wrong)).await;
        assert_eq!(told["wrong"].as_array().unwrap().len(), 4, "{told}");
        browser.eval(axe().unwrap()).await;
        let violations = browser.client.execute_async(ACCESSIBLE, Vec::new()).await.unwrap();
        assert_eq!(texts(&violations), Vec::<String>::new(), "{scheme}");
        assert_eq!(browser.eval(OVERFLOW).await, json!([]), "{scheme}");
    }
    browser.close().await;
}

#[tokio::test]
async fn without_javascript_the_table_remains_and_a_sentence_says_so() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(PHONE).await;
    browser.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.go(PAGE).await;
    browser.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": false })).await;
    let seen = browser
        .eval(
            "const shown = (e) => e.getBoundingClientRect().height > 0;
             return {
                 form: shown(document.getElementById('hold')),
                 buttons: [...document.querySelectorAll('.hold caption button')].some(shown),
                 rows: [...document.querySelectorAll('.hold tr[data-extra]')].filter(shown).length,
                 told: [...document.querySelectorAll('p.unscripted')].filter(shown).map((p) => p.textContent).join(),
             };",
        )
        .await;
    assert_eq!((&seen["form"], &seen["buttons"]), (&json!(false), &json!(false)));
    assert!(seen["rows"].as_u64().unwrap() > 20, "{seen}");
    assert!(seen["told"].as_str().unwrap().contains("The table below has the same numbers"));
    browser.close().await;
}
