//! The fee page in a real Chromium: the form says what the crate says.

use crate::browser::{ACCESSIBLE, Browser, DESKTOP, OVERFLOW, PHONE, axe, texts};
use fantoccini::key::Key;
use serde_json::{Value, json};

const PAGE: &str = "fees.html";

/// Every point of the table: what goes into the form, and what has to come out.
const POINTS: &str = "
    return [...document.querySelectorAll('.fees table')].flatMap((table) => {
        const { minFee, share, smallest, largest } = table.dataset;
        const works = table.querySelector('.works').textContent;
        return [...table.querySelectorAll('tr[data-size]')].map((row) => ({
            into: { 'min-fee': minFee, share, smallest, largest, size: row.dataset.size },
            out: { fee: row.cells[1].textContent, gets: row.cells[2].textContent, applies: row.dataset.applies, works },
        }));
    });";

/// Types these values, and says what the form answers and complains of.
fn fill(values: &Value) -> String {
    format!(
        "for (const [name, value] of Object.entries({values})) {{
             const input = document.getElementById('fees-' + name);
             input.value = value;
             input.dispatchEvent(new Event('input', {{ bubbles: true }}));
         }}
         {ANSWER}"
    )
}

const ANSWER: &str = "
    const text = (name) => document.getElementById('fees-' + name).textContent;
    return {
        out: { fee: text('fee'), gets: text('gets'), applies: text('applies'), works: text('works') },
        wrong: [...document.querySelectorAll('#fees .wrong')].map((p) => p.textContent).filter((wrong) => wrong),
        marked: [...document.querySelectorAll('#fees [aria-invalid]')].map((input) => input.name),
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
    let answers = points.iter().map(|point| point["out"]["gets"].as_str().unwrap());
    let nothing: std::collections::BTreeSet<_> =
        answers.filter(|gets| gets.starts_with("nothing")).collect();
    assert_eq!(nothing.len(), 4, "each way to get nothing is in the table: {nothing:?}");
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_field_that_holds_no_amount_is_marked_and_nothing_is_computed() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    let good = json!({
        "min-fee": "2 000 000", "share": "10000", "smallest": "1", "largest": "2'000'000'000",
        "size": "100 000 000",
    });
    let told = browser.eval(&fill(&good)).await;
    let right = told.clone();
    assert_eq!(told["out"]["fee"], "2\u{a0}000\u{a0}000");
    let most = "At most 18\u{a0}446\u{a0}744\u{a0}073\u{a0}709\u{a0}551\u{a0}615.";
    let whole = "A whole number, without a sign or a unit.";
    for (field, typed, wrong) in [
        ("size", "", "Type a number."),
        ("size", "  ", "Type a number."),
        ("size", "-1", whole),
        ("size", "1.5", whole),
        ("size", "1e6", whole),
        ("size", "100 000 msat", whole),
        ("size", "0x10", whole),
        ("size", "١٢٣", whole),
        ("min-fee", "18446744073709551616", most),
        ("share", "4294967296", "At most 4\u{a0}294\u{a0}967\u{a0}295."),
        ("largest", "0", "Not less than the smallest payment."),
    ] {
        let told = browser.eval(&fill(&json!({ field: typed }))).await;
        assert_eq!(told["wrong"], json!([wrong]), "{field}: {typed}");
        assert_eq!(told["marked"], json!([field]), "{field}: {typed}");
        let nothing = json!({ "fee": "—", "gets": "—", "applies": "see the field that is marked", "works": "—" });
        assert_eq!(told["out"], nothing, "{field}: {typed}");
        // Put right, the answer is back.
        assert_eq!(browser.eval(&fill(&good)).await, right, "{field}: {typed}");
    }
    let both = browser.eval(&fill(&json!({ "size": "x", "share": "" }))).await;
    assert_eq!(both["marked"], json!(["share", "size"]));
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
        browser.eval("document.getElementById('fees-min-fee').focus();").await;
        for (name, typed) in
            [("min-fee", "546000"), ("share", "0"), ("smallest", "1"), ("largest", "4000000000")]
        {
            let at = browser.eval("return document.activeElement.name;").await;
            assert_eq!(at, name);
            browser.press(&all).await;
            browser.press(typed).await;
            browser.press(&key(Key::Tab)).await;
        }
        browser.press(&all).await;
        // Enter computes nothing new, and leads nowhere.
        browser.press(&format!("546001{}", key(Key::Enter))).await;
        browser.until("document.getElementById('fees-gets').textContent === '1'").await;
        browser.press(&key(Key::Tab)).await;
        let set = browser.eval("return document.getElementById('fees-size').value;").await;
        assert_eq!(set, "546\u{a0}001", "a number that was left is set in groups");
        // The next stop after the form is a menu of the table.
        browser
            .until("document.activeElement.closest('caption') || document.activeElement.closest('.listing, p, pre')")
            .await;
        browser.eval("document.querySelectorAll('.fees caption button')[2].focus();").await;
        browser.press(&key(Key::Enter)).await;
        browser.until("document.activeElement.id === 'fees-size'").await;
        let told = browser.eval(ANSWER).await;
        assert_eq!(told["out"]["works"], "2\u{a0}msat");
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
            json!({ "min-fee": "-", "share": "", "smallest": "2", "largest": "1", "size": "x" });
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
                 form: shown(document.getElementById('fees')),
                 buttons: [...document.querySelectorAll('.fees caption button')].some(shown),
                 rows: [...document.querySelectorAll('.fees tr[data-size]')].filter(shown).length,
                 told: [...document.querySelectorAll('p.unscripted')].filter(shown).map((p) => p.textContent).join(),
             };",
        )
        .await;
    assert_eq!((&seen["form"], &seen["buttons"]), (&json!(false), &json!(false)));
    assert!(seen["rows"].as_u64().unwrap() > 20, "{seen}");
    assert!(seen["told"].as_str().unwrap().contains("The table below has the same numbers"));
    browser.close().await;
}
