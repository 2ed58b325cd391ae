//! The player on the flow page, as a reader uses it: with the keyboard, by links, on a phone, without
//! JavaScript, and live.

use crate::book::{built, root};
use crate::browser::{ACCESSIBLE, Browser, DESKTOP, OVERFLOW, PHONE, axe, texts};
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use fantoccini::key::Key;
use recording::Recording;
use recording::view::{Step, Viewer, steps};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const PAGE: &str = "flow.html";

/// The most that the script may weigh, compressed.
const HEAVIEST_SCRIPT: u64 = 40_000;

fn flow() -> Recording {
    Recording::read(&root().join("tests/recorded/flow.jsonl")).unwrap()
}

/// The steps that the player shows until the reader asks for every message.
fn story(recording: &Recording) -> Vec<Step> {
    steps(&recording.moments).into_iter().filter(|step| !step.background).collect()
}

fn key(key: Key) -> String {
    char::from(key).into()
}

/// Digit groups and names stand in the page with spaces that do not break, and typographic marks.
fn plain(text: &str) -> String {
    text.replace(['\u{a0}', '\u{202f}'], " ").replace('’', "'").trim().to_owned()
}

impl Browser {
    async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?}).textContent;");
        plain(self.eval(&script).await.as_str().unwrap())
    }

    /// Which moment the player shows.
    async fn moment(&self) -> usize {
        let script = "return +document.querySelector('.row[aria-current]').id.slice(7);";
        usize::try_from(self.eval(script).await.as_u64().unwrap()).unwrap()
    }

    async fn until_moment(&self, n: usize) {
        self.until(&format!(
            "document.querySelector('.player[data-ready] .row[aria-current]').id === 'moment-{n}'"
        ))
        .await;
    }

    /// Shows a moment as a link on the page would.
    async fn follow_link_to(&self, n: usize) {
        self.eval(&format!("location.hash = 'moment-{n}';")).await;
        self.until_moment(n).await;
    }

    /// Presses Tab until the focus is on what a condition asks for.
    async fn tab_to(&self, condition: &str) {
        for _ in 0..60 {
            self.press(&key(Key::Tab)).await;
            let script = format!("const e = document.activeElement; return Boolean({condition});");
            if self.eval(&script).await == true {
                return;
            }
        }
        panic!("no way with Tab to {condition}");
    }
}

#[tokio::test]
async fn the_keyboard_alone_plays_the_recording() {
    let Some(browser) = Browser::open().await else { return };
    let recording = flow();
    let story = story(&recording);
    let scenes: Vec<_> = story.iter().filter(|s| s.kind == recording::view::Kind::Scene).collect();
    assert!(scenes.len() > 5, "{scenes:?}");
    let last = story.len();
    for screen in [PHONE, DESKTOP] {
        browser.at(screen).await;
        browser.go(PAGE).await;
        browser.until_moment(story[0].n).await;
        browser.press(&key(Key::Tab)).await;
        browser.press(&key(Key::Enter)).await;
        browser.tab_to("e.matches('.player .row')").await;
        assert_eq!(browser.moment().await, story[0].n, "one of the list's rows has the focus");

        // One step on, one back, and on the list down and up.
        for (pressed, at) in
            [(Key::Right, 1), (Key::Right, 2), (Key::Left, 1), (Key::Down, 2), (Key::Up, 1)]
        {
            browser.press(&key(pressed)).await;
            browser.until_moment(story[at].n).await;
            assert_eq!(browser.text(".count").await, format!("{} / {last}", at + 1));
        }
        let focused = "document.activeElement.getAttribute('aria-current') === 'step'";
        browser.until(focused).await;

        // A part of the story on, and back.
        let shift = |with: Key| format!("{}{}{}", key(Key::Shift), key(with), key(Key::Null));
        browser.press(&shift(Key::Right)).await;
        browser.until_moment(scenes[1].n).await;
        browser.press(&shift(Key::Right)).await;
        browser.until_moment(scenes[2].n).await;
        browser.press(&shift(Key::Left)).await;
        browser.until_moment(scenes[1].n).await;
        let chosen = "return document.querySelector('.goto').value;";
        assert_eq!(browser.eval(chosen).await, json!(scenes[1].scene));

        browser.press(&key(Key::End)).await;
        browser.until_moment(story[last - 1].n).await;
        browser.press(&key(Key::Home)).await;
        browser.until_moment(story[0].n).await;

        // The last part, played to its end at the highest speed.
        browser.press(&key(Key::End)).await;
        browser.press(&shift(Key::Left)).await;
        browser.until_moment(scenes.last().unwrap().n).await;
        browser.eval("document.querySelector('.speed').value = '300';").await;
        browser.press(" ").await;
        browser.until("'playing' in document.querySelector('.player').dataset").await;
        browser.press("k").await;
        browser.until("!('playing' in document.querySelector('.player').dataset)").await;
        browser.press("k").await;
        browser.until_moment(story[last - 1].n).await;
        browser.until("!('playing' in document.querySelector('.player').dataset)").await;
        // What a screen reader says of it.
        let said = format!(
            "document.querySelector('.player > [role=status]').textContent.includes({:?})",
            story[last - 1].text
        );
        browser.until(&said).await;

        // The page's own keys turned no page, and outside the player they still do.
        assert!(browser.client.current_url().await.unwrap().path().ends_with(PAGE));
        // The slider is a slider.
        browser.tab_to("e.matches('.scrub')").await;
        browser.press(&key(Key::Left)).await;
        browser.until_moment(story[last - 2].n).await;
        browser.eval("document.activeElement.blur();").await;
        browser.press(&key(Key::Right)).await;
        browser.until(&format!("!location.pathname.endsWith('{PAGE}')")).await;
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_link_leads_to_a_moment_and_stepping_moves_it() {
    let Some(browser) = Browser::open().await else { return };
    let recording = flow();
    let story = story(&recording);
    let htlc = story.iter().position(|step| step.text == "update_add_htlc").unwrap();
    for screen in [PHONE, DESKTOP] {
        browser.at(screen).await;
        browser.go("start.html").await;
        browser.go(&format!("{PAGE}#moment-{}", story[htlc].n)).await;
        browser.until_moment(story[htlc].n).await;
        assert_eq!(browser.text(".now h2").await, "update_add_htlc");
        // The whole player is where the reader looks, and the row in sight.
        browser
            .until(
                "(() => { const top = document.querySelector('.player').getBoundingClientRect().top;
                  const story = document.querySelector('.story').getBoundingClientRect();
                  const row = document.querySelector('.row[aria-current]').getBoundingClientRect();
                  return top >= 0 && top < 120 && row.top >= story.top && row.bottom <= story.bottom; })()",
            )
            .await;

        browser.eval("document.querySelector('.forward').click();").await;
        browser.until(&format!("location.hash === '#moment-{}'", story[htlc + 1].n)).await;
        let length = browser.eval("return history.length;").await;
        browser.eval("document.querySelector('.forward').click();").await;
        browser.until(&format!("location.hash === '#moment-{}'", story[htlc + 2].n)).await;
        assert_eq!(browser.eval("return history.length;").await, length, "steps leave no trail");

        // A jump does: the way back leads to where it began.
        browser.eval(&format!("document.getElementById('moment-{}').click();", story[5].n)).await;
        browser.until_moment(story[5].n).await;
        browser.eval("history.back();").await;
        browser.until_moment(story[htlc + 2].n).await;
        browser.eval("history.forward();").await;
        browser.until_moment(story[5].n).await;

        // What a step was about to write does not land in the entry that the reader went back to.
        browser.eval("document.querySelector('.forward').click(); history.back();").await;
        browser.until_moment(story[htlc + 2].n).await;
        let later = "const done = arguments[0]; setTimeout(() => done(location.hash), 500);";
        let hash = browser.client.execute_async(later, Vec::new()).await.unwrap();
        assert_eq!(hash, json!(format!("#moment-{}", story[htlc + 2].n)));

        // The plain address is the beginning.
        browser.go("start.html").await;
        browser.go(PAGE).await;
        browser.until_moment(story[0].n).await;
        browser.eval(&format!("document.getElementById('moment-{}').click();", story[5].n)).await;
        browser.until_moment(story[5].n).await;
        browser.eval("history.back();").await;
        browser.until_moment(story[0].n).await;

        // Parts of the story and what happens in them have names that outlast a recording.
        browser.go(&format!("{PAGE}#step-4")).await;
        let step_4 = story.iter().find(|step| step.scene == "step-4").unwrap().n;
        browser.until_moment(step_4).await;
        browser.go(&format!("{PAGE}#step-4-update-add-htlc")).await;
        browser.until_moment(story[htlc].n).await;

        // What the story leaves out can be linked to, and then it shows.
        let hidden = steps(&recording.moments).into_iter().find(|s| s.background).unwrap().n;
        browser.eval(&format!("location.hash = 'moment-{hidden}';")).await;
        browser.until("document.querySelector('.every').checked").await;
        let shown = browser.text(".count").await;
        assert!(shown.ends_with(&format!("/ {}", recording.moments.len())), "{shown}");
        // Neither a number too large nor another fragment is a mistake.
        browser.go(&format!("{PAGE}#moment-999999")).await;
        let last = story.last().unwrap().n;
        browser.until_moment(last).await;
        browser.until(&format!("location.hash === '#moment-{last}'")).await;
        // A fragment that cannot be decoded is none.
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.go("start.html").await;
        browser.go(&format!("{PAGE}#%")).await;
        browser.until_moment(story[0].n).await;
        browser.follow_link_to(story[5].n).await;
        assert_eq!(browser.complaints().await, Vec::<String>::new());
        browser.go("start.html").await;
        browser.go(&format!("{PAGE}#run-it-now")).await;
        browser.until_moment(story[0].n).await;
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

/// What is marked of the bytes, spaces left out, and the field that is.
const MARKED: &str = "
    const text = document.querySelector('.dump.text');
    const marked = [...document.querySelectorAll('.b.on')].map((e) => e.textContent).join('');
    const field = document.querySelector('.field.on');
    return [text ? marked : marked.replace(/\\s/g, ''), field ? +field.dataset.i : null];";

#[tokio::test]
async fn fields_and_their_bytes_light_up_together() {
    let Some(browser) = Browser::open().await else { return };
    let recording = flow();
    let mut checked = 0;
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    for step in story(&recording).iter().filter(|step| !step.explained.is_empty()) {
        browser.follow_link_to(step.n).await;
        for (at, layer) in step.explained.iter().enumerate() {
            if step.explained.len() > 1 {
                let open = format!("document.querySelectorAll('.layer')[{at}].click();");
                browser.eval(&open).await;
            }
            let expected = |at: usize, len: usize| match layer.text {
                true => layer.bytes.as_bytes()[at..at + len].to_vec(),
                false => layer.bytes.as_bytes()[2 * at..2 * (at + len)].to_vec(),
            };
            // All fields at once: the browser answers one question a layer.
            let marks = browser
                .eval(&format!(
                    "return [...document.querySelectorAll('.field')].map((field) => {{
                         field.click();
                         const of = (() => {{ {MARKED} }})();
                         field.click();
                         return of;
                     }});"
                ))
                .await;
            let marks = marks.as_array().unwrap();
            assert_eq!(marks.len(), layer.fields.len(), "{} {}", step.n, layer.title);
            for (i, (field, mark)) in layer.fields.iter().zip(marks).enumerate() {
                let bytes = String::from_utf8(expected(field.at, field.len)).unwrap();
                assert_eq!(mark[0], bytes, "{} {}: {}", step.n, layer.title, field.name);
                assert_eq!(mark[1], i, "{} {}: {}", step.n, layer.title, field.name);
                checked += 1;
            }
            // And the other way: each piece of the bytes marks the innermost field it lies in.
            let back = browser
                .eval(
                    "return [...document.querySelectorAll('.b[data-f]')].map((piece) => {
                         piece.click();
                         const on = document.querySelector('.field.on');
                         const right = on && on.dataset.i === piece.dataset.f && piece.classList.contains('on');
                         piece.click();
                         return Boolean(right);
                     });",
                )
                .await;
            assert!(back.as_array().unwrap().iter().all(|right| *right == true), "{}", step.n);
        }
    }
    assert!(checked > 200, "{checked} fields");

    // With the keyboard, and under the pointer.
    let htlc = story(&recording).into_iter().find(|step| step.text == "update_add_htlc").unwrap();
    browser.follow_link_to(htlc.n).await;
    browser.tab_to("e.matches('.field')").await;
    browser.press(&key(Key::Down)).await;
    browser.press(&key(Key::Down)).await;
    browser.until("document.activeElement.matches('.field[aria-selected=true]')").await;
    let amount = &htlc.explained[0].fields[2];
    assert_eq!(amount.name, "amount_msat");
    let marked = browser.eval(MARKED).await;
    assert_eq!(marked[0], htlc.explained[0].bytes[2 * amount.at..2 * (amount.at + amount.len)]);
    browser
        .eval(
            "document.querySelectorAll('.field')[1].dispatchEvent(
                 new PointerEvent('pointerover', { bubbles: true, pointerType: 'mouse' }));",
        )
        .await;
    assert_eq!(browser.eval(MARKED).await[1], 1);
    // A step on keeps the keys within the player.
    browser.press(&key(Key::Right)).await;
    browser.until("document.activeElement.closest('.player')").await;
    assert_ne!(browser.moment().await, htlc.n);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

/// The parties' states as the page shows them: party, what, value; and who is online.
const STATES: &str = "
    const lines = [];
    for (const e of document.querySelectorAll('.state [data-key]')) {
        const value = e.querySelector('dd') || e.querySelector('.visually-hidden');
        lines.push([e.closest('[data-party]').dataset.party, e.dataset.key, value.textContent]);
    }
    const power = [...document.querySelectorAll('.party')].map((e) => [e.dataset.party, e.querySelector('.power').textContent]);
    return [lines, power];";

#[tokio::test]
async fn the_states_at_a_moment_are_what_the_recording_says() {
    let Some(browser) = Browser::open().await else { return };
    let recording = flow();
    let story = story(&recording);
    let labels: BTreeMap<_, _> =
        recording.header.lanes.iter().map(|lane| (lane.id.as_str(), lane.label.as_str())).collect();
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    let mut told = 0;
    for at in (0..story.len()).filter(|at| at % 7 == 3 || at + 1 == story.len()) {
        browser.follow_link_to(story[at].n).await;
        // What the nodes wrote until the next step of the story belongs to this one.
        let end = story.get(at + 1).map_or(recording.moments.len(), |next| next.n);
        let mut viewer = Viewer::new();
        recording.moments[..end].iter().for_each(|moment| {
            viewer.step(moment);
        });
        let shown = browser.eval(STATES).await;
        let mut lines: BTreeMap<(String, String), String> = BTreeMap::new();
        for line in shown[0].as_array().unwrap() {
            let part = |i: usize| line[i].as_str().unwrap().to_owned();
            lines.insert((part(0), part(1)), plain(&part(2)));
        }
        for (party, state) in viewer.states() {
            for (what, value) in state.iter().filter(|(what, _)| *what != "power") {
                let line = lines.remove(&(party.clone(), what.clone()));
                let line =
                    line.unwrap_or_else(|| panic!("no {what} of {party} at {}", story[at].n));
                let named = labels.iter().fold(value.clone(), |value, (id, label)| {
                    match ["with ", "to ", "for ", "from "]
                        .iter()
                        .find(|w| value.contains(&format!("{w}{id}")))
                    {
                        Some(_) if value.ends_with(id) => {
                            value[..value.len() - id.len()].to_owned() + label
                        }
                        _ => value,
                    }
                });
                assert!(
                    line.contains(&named),
                    "{what} of {party} at {}: {line}, not {named}",
                    story[at].n
                );
                told += 1;
            }
        }
        assert!(lines.is_empty(), "at {} there is no {lines:?}", story[at].n);
        for power in shown[1].as_array().unwrap() {
            let state = viewer.states().get(power[0].as_str().unwrap());
            let expected = state.and_then(|state| state.get("power")).map_or("online", |p| p);
            assert_eq!(power[1], expected, "{} at {}", power[0], story[at].n);
        }
    }
    assert!(told > 100, "{told} lines");

    // What a step has changed is marked: the HTLC's arrival at the LSP that holds it.
    let htlc = story.iter().find(|step| step.text == "update_add_htlc").unwrap();
    browser.follow_link_to(htlc.n).await;
    let changed = browser
        .eval(&format!(
            "return [...document.querySelectorAll('.party[data-party={:?}] .changed')].map((e) => e.dataset.key);",
            htlc.at
        ))
        .await;
    assert_eq!(texts(&changed), ["htlc"]);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn paper_has_the_whole_list_and_no_controls() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    browser.until("document.querySelector('.player[data-ready]')").await;
    browser.cdp("Emulation.setEmulatedMedia", json!({ "media": "print" })).await;
    let seen = browser
        .eval(
            "const story = document.querySelector('.story');
             return [story.scrollHeight > story.clientHeight + 1, [...document.querySelectorAll('.acts .row')].filter((e) => e.offsetHeight > 0).length,
                 [...document.querySelectorAll('.player .scripted')].filter((e) => e.offsetHeight > 0).length];",
        )
        .await;
    assert_eq!(seen, json!([false, story(&flow()).len(), 0]));
    browser.close().await;
}

#[tokio::test]
async fn without_javascript_the_whole_story_is_a_list() {
    let Some(browser) = Browser::open().await else { return };
    let story = story(&flow());
    for screen in [PHONE, DESKTOP] {
        browser.at(screen).await;
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
        browser.go(PAGE).await;
        // WebDriver's own scripts still run.
        let rows = browser
            .eval(
                "return [...document.querySelectorAll('.acts .row')].filter((e) => e.offsetHeight > 0)
                     .map((e) => [e.id, e.innerText]);",
            )
            .await;
        let rows = rows.as_array().unwrap();
        assert_eq!(rows.len(), story.len());
        for (row, step) in rows.iter().zip(&story) {
            assert_eq!(row[0], format!("moment-{}", step.n));
            let text = plain(row[1].as_str().unwrap());
            assert!(text.contains(&step.text), "{text}: {}", step.text);
        }
        let dead = browser
            .eval("return [...document.querySelectorAll('.player :is(button, select, input), form.run')].filter((e) => e.offsetHeight > 0).length;")
            .await;
        assert_eq!(dead, 0, "no control that does nothing");
        assert_eq!(browser.eval(OVERFLOW).await, json!([]));
        browser.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": false })).await;
    }
    browser.close().await;
}

/// Controls that a finger cannot hit, or that lie under the bar or the controls at the foot.
const TARGETS: &str = "
    const wrong = [];
    for (const e of document.querySelectorAll('.player :is(button, select, .check, .field, .scrub), form.run :is(button, label, input:not([type=radio]))')) {
        const box = e.getBoundingClientRect();
        if (box.width && box.height && box.height < 43.5 && !(e.matches('.choice label'))) wrong.push(e.className + ' ' + e.tagName + ' is ' + box.height + ' high');
    }
    const foot = document.querySelector('.transport').getBoundingClientRect();
    if (foot.height > innerHeight / 4) wrong.push('the controls take ' + foot.height);
    return wrong;";

#[tokio::test]
async fn the_player_is_accessible_wherever_it_stands() {
    let Some(browser) = Browser::open().await else { return };
    let recording = flow();
    let story = story(&recording);
    let layers = story.iter().max_by_key(|step| step.explained.len()).unwrap().n;
    let json = story.iter().find(|step| step.explained.iter().any(|e| e.text)).unwrap().n;
    let mut wrong = Vec::new();
    for (screen, scheme) in
        [(PHONE, "light"), (PHONE, "dark"), (DESKTOP, "light"), (DESKTOP, "dark")]
    {
        browser.at(screen).await;
        browser.in_colours(scheme).await;
        browser.go(PAGE).await;
        browser.until_moment(story[0].n).await;
        for n in [story[0].n, layers, json, story.last().unwrap().n] {
            browser.follow_link_to(n).await;
            browser.eval("document.querySelectorAll('.field')[2]?.click();").await;
            let mut found = texts(&browser.eval(OVERFLOW).await);
            browser.eval(axe().unwrap()).await;
            let seen = browser.client.execute_async(ACCESSIBLE, Vec::new()).await.unwrap();
            found.extend(texts(&seen));
            if screen.mobile {
                found.extend(texts(&browser.eval(TARGETS).await));
            }
            wrong.extend(found.into_iter().map(|what| format!("{scheme}, moment {n}: {what}")));
        }
        // Every message.
        browser.eval("document.querySelector('.every').click();").await;
        let shown = browser.eval("return document.querySelectorAll('.acts .row').length;").await;
        assert_eq!(shown, recording.moments.len());
        wrong.extend(texts(&browser.eval(OVERFLOW).await));
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn the_script_is_light_and_comes_on_its_page_only() {
    let Some(browser) = Browser::open().await else { return };
    let scripts = "
        return performance.getEntriesByType('resource')
            .filter((e) => /player/.test(e.name)).map((e) => [e.name, e.encodedBodySize]);";
    browser.go(PAGE).await;
    browser.until("document.querySelector('.player[data-ready]')").await;
    let loaded = browser.eval(scripts).await;
    let loaded = loaded.as_array().unwrap();
    assert_eq!(loaded.len(), 2, "{loaded:?}");
    for file in loaded {
        println!("{}: {} bytes", file[0], file[1]);
        assert!((1..HEAVIEST_SCRIPT).contains(&file[1].as_u64().unwrap()), "{file}");
    }
    browser.go("start.html").await;
    browser.until("document.readyState === 'complete'").await;
    assert_eq!(browser.eval(scripts).await, json!([]));
    browser.close().await;
}

#[tokio::test]
async fn a_live_run_is_refused_with_the_reason_and_another_one_is_paid() {
    let Some(mut browser) = Browser::open().await else { return };
    // A hosted copy has no form, and says what has.
    browser.at(DESKTOP).await;
    browser.go(PAGE).await;
    let hosted = "return [document.querySelector('form.run').offsetHeight, document.querySelector('.hosted').innerText];";
    let hosted = browser.eval(hosted).await;
    assert_eq!(hosted[0], 0);
    assert!(hosted[1].as_str().unwrap().contains("cargo run"), "{hosted}");

    let server = guide::book::Server::start(&root(), Some(0)).await.unwrap();
    browser.base = format!("http://{}", server.address());
    browser.go(PAGE).await;
    browser.until("/\\d/.test(document.getElementById('run-amount_msat-hint').textContent)").await;
    assert_eq!(browser.eval("return document.querySelector('.hosted').offsetHeight;").await, 0);
    let fill = |amount: &str| {
        format!(
            "const e = document.getElementById('run-amount_msat'); e.value = {amount:?}; e.focus();"
        )
    };
    browser.eval(&fill("5")).await;
    browser.press(&key(Key::Enter)).await;
    browser.until("document.getElementById('run-amount_msat-wrong').textContent").await;
    let refusal = browser.text("#run-amount_msat-wrong").await;
    assert!(refusal.contains("choose") && refusal.contains("msat"), "{refusal}");
    let field =
        "return [document.activeElement.id, document.activeElement.getAttribute('aria-invalid')];";
    assert_eq!(browser.eval(field).await, json!(["run-amount_msat", "true"]));
    browser.eval(axe().unwrap()).await;
    let seen = browser.client.execute_async(ACCESSIBLE, Vec::new()).await.unwrap();
    assert_eq!(texts(&seen), Vec::<String>::new());

    // Digits may stand in groups.
    browser.eval(&fill("250 000 001")).await;
    browser.press(&key(Key::Enter)).await;
    browser.until("document.querySelector('.live').dataset.state === 'following'").await;
    browser.until("parseInt(document.querySelector('.count').textContent) > 8").await;
    assert_eq!(browser.text("#run-amount_msat-wrong").await, "");
    // The reader looks back while it goes on, and catches up.
    browser.press(&key(Key::Left)).await;
    let state = browser.eval("return document.querySelector('.live').dataset.state;").await;
    if state != "paid" {
        assert_eq!(state, "paused");
        browser.eval("document.querySelector('.follow').click();").await;
    }
    wait_for_the_end(&browser).await;
    assert_eq!(browser.eval("return document.querySelector('.live').dataset.state;").await, "paid");
    let books = plain(
        browser.eval("return document.querySelector('.books').innerText;").await.as_str().unwrap(),
    );
    for sum in ["250 001 001 msat", "1 000 msat", "2 500 001 msat", "247 500 000 msat"] {
        assert!(books.contains(sum), "{books}");
    }
    // Its states are the last ones, and no link leads to what will be gone.
    assert!(browser.text(".state").await.contains("247 500 000 msat, 2 500 001 msat skimmed"));
    let of_run =
        browser.eval("return [location.hash, document.querySelector('.link').disabled];").await;
    assert_eq!(of_run, json!(["", true]));

    // It is there after a reload, too, while the server has it.
    browser.go("start.html").await;
    browser.go(PAGE).await;
    browser.until("document.querySelector('form.run .answer button')").await;
    assert!(browser.text("form.run .answer").await.contains("The last run"));
    browser.eval("document.querySelector('form.run .answer button').click();").await;
    browser.until("document.querySelector('.live').dataset.state === 'paid'").await;

    browser.eval("document.querySelector('.leave').click();").await;
    let story = story(&flow());
    browser.until_moment(story[0].n).await;
    assert_eq!(browser.text(".count").await, format!("1 / {}", story.len()));
    // A refused request is all that the console has to say.
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|line| line.contains("422")), "{complaints:?}");
    browser.close().await;
}

/// A run takes longer than a page usually lets wait.
async fn wait_for_the_end(browser: &Browser) {
    for _ in 0..6 {
        let over = browser
            .client
            .execute_async(
                "const done = arguments[0], end = performance.now() + 25000;
                 (function look() {
                     const state = document.querySelector('.live').dataset.state;
                     if (/paid|failed/.test(state) || performance.now() > end) done(state);
                     else setTimeout(look, 50);
                 })();",
                Vec::new(),
            )
            .await
            .unwrap();
        if over == "paid" || over == "failed" {
            return;
        }
    }
    panic!("the run does not end");
}

/// A server that has a run under way, loses its reader in the middle of it, fails, and forgets it.
fn unlucky(asked: Arc<AtomicUsize>) -> Router {
    let page = std::fs::read_to_string(built().dest.join(PAGE)).unwrap();
    let page = page.replacen("<html", "<html data-live", 1);
    let recording = flow();
    let header = json!({
        "name": "live", "title": "", "about": "", "ldk": "",
        "setting": { "amount_msat": 1, "min_fee_msat": 1, "proportional": 1, "trust": "lsp", "payer": "online", "recipient": "online" },
        "lanes": recording.header.lanes,
    });
    let steps = story(&recording);
    let event =
        |name: &str, id: usize, data: &Value| format!("event: {name}\nid: {id}\ndata: {data}\n\n");
    let step =
        move |at: usize| event("step", steps[at].n, &serde_json::to_value(&steps[at]).unwrap());
    let first = event("header", 0, &header) + &(0..5).map(&step).collect::<String>();
    // What comes again after a lost connection is known already.
    let second = (3..9).map(&step).collect::<String>()
        + &event("end", 99, &json!({ "outcome": "failed", "error": "the payer gave up" }));
    let events = move |headers: HeaderMap| {
        let asked = asked.fetch_add(1, Ordering::SeqCst);
        let forgotten = asked > 1;
        let last = headers.get("last-event-id").map(|id| id.to_str().unwrap().to_owned());
        assert!(forgotten || (asked > 0) == last.is_some(), "the browser says what it has");
        let body = if asked == 0 { format!("retry: 50\n{first}") } else { second.clone() };
        let status = if forgotten { StatusCode::NOT_FOUND } else { StatusCode::OK };
        async move { (status, [(header::CONTENT_TYPE, "text/event-stream")], body) }
    };
    let offer = || async {
        axum::Json(json!({ "running": false, "run": null, "limit_s": 1, "choices": {} }))
    };
    let busy = || async {
        let problem =
            json!({ "error": "a run is under way: wait for its end, or follow it", "run": "abc" });
        (StatusCode::CONFLICT, axum::Json(problem)).into_response()
    };
    Router::new()
        .route("/flow.html", get(move || async move { Html(page) }))
        .route("/live", get(offer))
        .route("/live/run", post(busy))
        .route("/live/events", get(events))
        .fallback_service(tower_http::services::ServeDir::new(&built().dest))
}

#[tokio::test]
async fn a_run_under_way_is_offered_and_survives_a_lost_connection() {
    let Some(mut browser) = Browser::open().await else { return };
    let asked = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    browser.base = format!("http://{}", listener.local_addr().unwrap());
    let app = unlucky(asked.clone());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    browser.at(PHONE).await;
    browser.go(PAGE).await;
    browser.until("document.querySelector('.player[data-ready]')").await;
    assert_eq!(texts(&browser.eval(TARGETS).await), Vec::<String>::new());
    browser.eval("document.querySelector('form.run [type=submit]').click();").await;
    browser.until("document.querySelector('form.run .answer button')").await;
    assert!(browser.text("form.run .answer").await.contains("A run is under way"));
    // Every message is asked for before there is any.
    let first = browser
        .eval(
            "window.thrown = [];
             addEventListener('error', (event) => thrown.push(event.message));
             document.querySelector('form.run .answer button').click();
             document.querySelector('.every').click();
             return document.querySelector('.live .saying').textContent;",
        )
        .await;
    assert_eq!(first, "Starting four nodes …");
    browser.until("document.querySelector('.live').dataset.state === 'failed'").await;
    assert_eq!(browser.eval("return window.thrown;").await, json!([]));
    let play = "return document.querySelector('.play').getAttribute('aria-label');";
    assert_eq!(browser.eval(play).await, "Play");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let said = browser.text(".live .saying").await;
    assert!(said.contains("the payer gave up"), "{said}");
    let rows = browser.eval("return document.querySelectorAll('.acts .row').length;").await;
    assert_eq!(rows, 9, "each step once");
    assert_eq!(browser.text(".count").await, "9 / 9");
    assert_eq!(browser.eval(OVERFLOW).await, json!([]));

    // Asked for again, the run is forgotten: nothing is followed any more.
    browser.eval("document.querySelector('form.run [type=submit]').click();").await;
    browser.until("document.querySelector('form.run .answer button')").await;
    browser.eval("document.querySelector('form.run .answer button').click();").await;
    browser.until("document.querySelector('.live').dataset.state === 'lost'").await;
    assert!(browser.text(".live .saying").await.contains("forgotten"));
    assert_eq!(browser.eval(play).await, "Play");
    // No step is there, and no key minds.
    for pressed in [Key::Right, Key::Left, Key::Home, Key::End] {
        browser.press(&key(pressed)).await;
    }
    browser.press("k").await;
    browser.press("k").await;
    assert_eq!(browser.eval("return window.thrown;").await, json!([]));

    // The server is gone: the form says so.
    server.abort();
    let _ = server.await;
    browser.eval("document.querySelector('form.run [type=submit]').click();").await;
    browser
        .until("/does not answer/.test(document.querySelector('form.run .answer').textContent)")
        .await;
    browser.close().await;
}
