//! A headless Chromium, driven through chromedriver over HTTP. It has an empty profile, and goes nowhere by itself.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::PATIENCE;

/// A page in a browser.
pub struct Browser {
    driver: Child,
    session: String,
    screen: std::sync::Mutex<Option<Screen>>,
    http: reqwest::Client,
    _profile: tempfile::TempDir,
}

/// How the page is to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

impl Browser {
    /// Starts one. Chromium and chromedriver must be installed: `tests/install.sh chromium chromium-driver`.
    pub async fn open(with_scripts: bool) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver: tests/install.sh chromium chromium-driver installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .find_map(|line| {
                line.split("successfully on port ").nth(1).map(|port| port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver names its port");
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut arguments = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        if !with_scripts {
            arguments.push("--blink-settings=scriptEnabled=false".to_owned());
        }
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let base = format!("http://127.0.0.1:{port}/session");
        let mut browser =
            Self { driver, session: base.clone(), screen: std::sync::Mutex::default(), http, _profile: profile };
        let made = browser.post("", &wanted).await;
        browser.session = format!("{base}/{}", made["sessionId"].as_str().expect("a session"));
        browser
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let sent = self.http.post(url).header("content-type", "application/json").body(body.to_string()).send();
        let text = sent.await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["value"].get("error").is_none(), "{path}: {text}");
        answer["value"].take()
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", &json!({"cmd": command, "params": parameters})).await
    }

    /// Sets how the page is seen, then and later.
    pub async fn look(&self, screen: Screen) {
        *self.screen.lock().unwrap() = Some(screen);
        self.show(screen).await;
    }

    async fn show(&self, screen: Screen) {
        let Screen { width, height, dark } = screen;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 2, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    pub async fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url})).await;
    }

    /// What an expression gives.
    pub async fn eval(&self, expression: &str) -> Value {
        self.post("/execute/sync", &json!({"script": format!("return {expression}"), "args": []})).await
    }

    /// Presses the tabulator key.
    pub async fn press_tab(&self) {
        let key = |kind: &str| json!({"type": kind, "value": "\u{e004}"});
        let keys = json!({"type": "key", "id": "keys", "actions": [key("keyDown"), key("keyUp")]});
        self.post("/actions", &json!({"actions": [keys]})).await;
    }

    /// The text of an element.
    pub async fn text(&self, id: &str) -> String {
        self.eval(&format!("document.getElementById('{id}').innerText")).await.as_str().unwrap().to_owned()
    }

    /// Waits until an element's text is as it ought to be.
    pub async fn wait(&self, id: &str, enough: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        let mut last = String::new();
        while start.elapsed() < PATIENCE {
            last = self.text(id).await;
            if enough(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("#{id} says {last:?}");
    }

    /// Keeps a picture of the whole page.
    pub async fn shoot(&self, path: &Path) {
        use base64::Engine as _;
        // On a screen as high as the page: what lies below the edge of one is not always painted.
        let screen = self.screen.lock().unwrap().expect("it was looked at");
        let height = self.eval("document.documentElement.scrollHeight").await.as_u64().unwrap();
        self.show(Screen { height: u32::try_from(height).unwrap(), ..screen }).await;
        let shot = self.devtools("Page.captureScreenshot", json!({})).await;
        self.show(screen).await;
        let picture = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, picture).unwrap();
    }

    /// What the console said since this was asked last.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"})).await;
        entries.as_array().unwrap().iter().map(ToString::to_string).collect()
    }

    /// The addresses that were asked for since this was asked last.
    pub async fn requested(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "performance"})).await;
        let told = entries.as_array().unwrap().iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            let is_request = message["method"] == "Network.requestWillBeSent";
            is_request.then(|| message["params"]["request"]["url"].as_str().unwrap_or_default().to_owned())
        });
        told.collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver takes its browser with it where it is told to; killed, it does not.
        let session = self.session.clone();
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
            let _ = runtime.block_on(async { client.delete(session).send().await });
        });
        let _ = end.join();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
