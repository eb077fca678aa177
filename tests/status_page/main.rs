//! The status page in a real browser: it shows what matters, follows by itself, asks nobody else for anything, and its
//! pictures are kept in `target/status-page` to be looked at.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::match_wild_err_arm,
    clippy::default_trait_access
)]

mod browser;
#[path = "../it/support/mod.rs"]
mod support;
#[path = "../support/truth.rs"]
mod truth;

use std::path::{Path, PathBuf};

use browser::{Browser, Screen};
use migma_eraser::sandbox::Faults;
use support::requests::mixed;
use support::{Request, Worker, World};

const DESKTOP: Screen = Screen { width: 1280, height: 900, dark: false };
const PHONE: Screen = Screen { width: 390, height: 844, dark: false };

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/status-page").join(format!("{name}.png"))
}

/// Nothing but the page itself was asked for, and nothing was complained about.
async fn is_clean(browser: &Browser, worker: &Worker) {
    let here = format!("http://{}/", worker.admin());
    let requested = browser.requested().await;
    assert!(requested.contains(&here), "{requested:?}");
    let elsewhere: Vec<_> =
        // Its own new tab is the browser's affair.
        requested.iter().filter(|url| ![&*here, "data:", "chrome://"].iter().any(|own| url.starts_with(own))).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    let console = browser.console().await;
    assert!(console.is_empty(), "{console:?}");
}

/// Nothing is wider than the screen, and nothing on it is the address of a contact.
async fn is_tidy(browser: &Browser) {
    let wider = browser.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
    assert!(wider.as_i64().unwrap() <= 0, "the page is {wider} pixels wider than its screen");
    let has_address = browser.eval("document.documentElement.innerHTML.includes('@example')").await;
    assert_eq!(has_address, false);
}

async fn order(worker: &Worker, path: &str, body: &str) {
    let client = reqwest::Client::new();
    let request = client.post(format!("http://{}{path}", worker.admin())).header("content-type", "application/json");
    assert_eq!(request.body(body.to_owned()).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_follows_the_worker_through_work_a_hold_and_a_pause() {
    let world = World::new().await;
    let worker = world.worker_with(&[("RATE_LIMIT__REQUESTS_PER_DAY", "50000")]).await;
    let browser = Browser::open(true).await;
    browser.look(DESKTOP).await;
    browser.go(&format!("http://{}/", worker.admin())).await;
    browser.wait("link", |text| text == "live").await;
    browser.wait("state", |text| text.contains("Ready") && text.contains("Nothing waits")).await;
    assert!(browser.text("held").await.contains("Nothing is held"));
    for id in ["state", "figures", "held", "emails", "calls", "latency", "failures", "now"] {
        assert!(!browser.text(id).await.trim().is_empty(), "{id}");
    }
    browser.shoot(&picture("idle-light")).await;

    // It shows what was done, without being loaded again.
    let requests = mixed(300, &["p", "q"], 900, 7);
    world.vhost.publish(&requests).await;
    let unusable = Request::of("r-1", "p", vec!["not an address".into()]);
    world.vhost.publish(&[unusable]).await;
    browser.wait("emails", |text| text.contains("deleted") && !text.contains("deleted 0")).await;
    browser.wait("calls", |text| !text.contains("2xx 0")).await;
    browser.wait("failures", |text| text.contains("NO_VALID_EMAIL") && text.contains("rejected")).await;
    assert_eq!(browser.eval("document.querySelectorAll('#emails svg.plot path.a').length").await, 1);
    let told = browser.eval("document.querySelector('#emails svg.plot').getAttribute('aria-label')").await;
    assert!(told.as_str().unwrap().contains(" deleted, "), "{told}");

    // A hold, and a pause beside it.
    world.set_faults(Faults { refuse_all_keys: true, ..Faults::default() });
    let more: Vec<Request> =
        (0..40).map(|n| Request::of(&format!("more-{n}"), "p", vec![format!("more{n}@example.org")])).collect();
    world.vhost.publish(&more).await;
    browser.wait("held", |text| text.contains("key_refused") && text.contains("ext try")).await;
    let state = browser.wait("state", |text| text.contains("Waiting")).await;
    assert!(state.contains("migma.api_key_file"), "{state}");
    order(&worker, "/pause", r#"{"project":"proj_8f2","reason":"wrong list in DSR-4711"}"#).await;
    browser.wait("held", |text| text.contains("Project proj_8f2 is paused") && text.contains("DSR-4711")).await;
    is_tidy(&browser).await;
    browser.shoot(&picture("held-light")).await;
    browser.look(Screen { dark: true, ..DESKTOP }).await;
    browser.shoot(&picture("held-dark")).await;
    order(&worker, "/pause", "{}").await;
    browser.wait("state", |text| text.contains("Paused") && text.contains("resumes")).await;
    browser.look(PHONE).await;
    is_tidy(&browser).await;
    browser.shoot(&picture("paused-phone-light")).await;
    browser.look(Screen { dark: true, ..PHONE }).await;
    browser.shoot(&picture("paused-phone-dark")).await;

    // It ends as it began.
    world.set_faults(Faults::default());
    order(&worker, "/resume", "{}").await;
    order(&worker, "/resume", r#"{"project":"proj_8f2"}"#).await;
    browser.wait("held", |text| text.contains("Nothing is held")).await;
    browser.look(DESKTOP).await;
    browser.eval("(document.querySelector('details').open = true)").await;
    assert!(browser.text("minutes").await.contains("Deleted"));
    browser.shoot(&picture("after-light")).await;
    is_clean(&browser, &worker).await;
    worker.stop().await;
    browser.wait("link", |text| text.contains("not connected")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_the_page_shows_the_moment_of_its_loading() {
    let world = World::new().await;
    let worker = world.worker().await;
    order(&worker, "/pause", r#"{"reason":"to look at it"}"#).await;
    let browser = Browser::open(false).await;
    browser.look(DESKTOP).await;
    browser.go(&format!("http://{}/", worker.admin())).await;
    browser.wait("state", |text| text.contains("Paused")).await;
    assert!(browser.text("held").await.contains("to look at it"));
    assert_eq!(browser.text("link").await, "");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_reaches_every_link_and_shows_where_it_is() {
    let world = World::new().await;
    let worker = world.worker().await;
    let browser = Browser::open(true).await;
    browser.look(DESKTOP).await;
    browser.go(&format!("http://{}/", worker.admin())).await;
    browser.wait("link", |text| text == "live").await;
    let mut reached = Vec::new();
    for _ in 0..5 {
        browser.press_tab().await;
        let at =
            browser.eval("(document.activeElement.getAttribute('href') || document.activeElement.localName)").await;
        let outline = browser.eval("getComputedStyle(document.activeElement).outlineStyle").await;
        assert_ne!(outline, "none", "{at}");
        reached.push(at.as_str().unwrap().to_owned());
    }
    assert_eq!(reached, ["#main", "readyz", "metrics", "pauses", "summary"]);
    worker.stop().await;
}
