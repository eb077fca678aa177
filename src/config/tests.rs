use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::settings::KEYS;
use super::*;
use crate::domain::ids::ProjectId;

fn faults(text: &str) -> Vec<String> {
    Config::from_toml("t.toml", text).err().map_or_else(Vec::new, |e| e.faults.iter().map(Fault::to_string).collect())
}

fn from_env(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, variables.iter().map(|(name, value)| ((*name).into(), (*value).into())))
}

fn env_faults(variables: &[(&str, &str)]) -> Vec<String> {
    from_env(variables).err().map_or_else(Vec::new, |e| e.faults.iter().map(Fault::to_string).collect())
}

/// One fault that says all of this.
#[track_caller]
fn tells(faults: &[String], parts: &[&str]) {
    assert_eq!(faults.len(), 1, "{faults:?}");
    for part in parts {
        assert!(faults[0].contains(part), "{part:?} is missing in {:?}", faults[0]);
    }
}

#[test]
fn the_defaults_are_sound_and_are_those_of_the_contract() {
    let config = from_env(&[]).unwrap();
    assert!(config.amqp.url.expose().eq(["amqp://guest:guest@127.0.0.1:5672/%2f"]));
    assert_eq!((config.amqp.buffer_bytes, config.amqp.max_message_bytes), (64 << 20, 12 << 20));
    assert_eq!(config.amqp.consumer_timeout, Duration::from_mins(30));
    assert!(config.amqp.declare_topology && !config.outcome.reply_to);
    assert_eq!(config.migma.base_url.as_str(), "https://api.migma.ai/");
    assert_eq!((config.migma.max_in_flight, config.migma.request_timeout), (8, Duration::from_secs(30)));
    assert_eq!((config.batch.max_emails, config.batch.linger), (1000, Duration::from_millis(250)));
    assert_eq!((config.rate_limit.requests_per_minute.get(), config.rate_limit.burst.get()), (100, 1));
    assert_eq!(config.rate_limit.requests_per_day, None);
    assert_eq!(config.retry.initial_interval, Duration::from_millis(500));
    assert!((config.retry.multiplier - 2.0).abs() < f64::EPSILON);
    assert_eq!(
        (config.retry.max_interval, config.retry.give_up_after),
        (Duration::from_mins(1), Duration::from_hours(24))
    );
    assert_eq!(config.journal.url, JournalUrl::Sqlite("data/migma-eraser.db".into()));
    assert_eq!((config.journal.retention, config.journal.shared), (Duration::from_hours(72), true));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.shutdown.grace, Duration::from_secs(30));
    let names = config.amqp.names();
    assert_eq!(
        names.exchanges().map(|(_, name)| name),
        ["contacts.deletion", "contacts.deletion.outcomes", "contacts.deletion.dead"]
    );
    assert_eq!(
        names.queues().map(|(_, name)| name),
        [
            "contacts.deletion.requests",
            "contacts.deletion.outcomes",
            "contacts.deletion.dead",
            "contacts.deletion.returned",
            "contacts.deletion.parked"
        ]
    );
}

#[test]
fn every_setting_stands_in_the_defaults_with_its_documentation_and_nothing_else_does() {
    let table: toml::Table = DEFAULTS.parse().unwrap();
    let keys = |(section, keys): (&String, &toml::Value)| {
        keys.as_table().unwrap().keys().map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    let standing: BTreeSet<String> = table.iter().flat_map(keys).collect();
    assert_eq!(standing, KEYS.iter().map(|key| (*key).to_owned()).collect());

    let lines: Vec<&str> = DEFAULTS.lines().collect();
    for pair in lines.windows(2) {
        let setting = pair[1].contains(" = ") && !pair[1].starts_with('#');
        assert!(!setting || pair[0].starts_with("# "), "no word about {}", pair[1]);
    }
    // Listed in the order in which they are documented.
    let config = Config::from_toml("t.toml", "").unwrap();
    let positions = config.settings().iter().map(|setting| {
        let (section, key) = setting.key.split_once('.').unwrap();
        let section = DEFAULTS.find(&format!("\n[{section}]\n")).unwrap();
        section + DEFAULTS[section..].find(&format!("\n{key} = ")).unwrap()
    });
    assert!(positions.is_sorted());
    assert_eq!(config.settings().len(), KEYS.len());
}

#[test]
fn the_production_example_is_sound() {
    let config = Config::from_toml("p.toml", include_str!("../../config/production.example.toml")).unwrap();
    assert!(config.amqp.url.is_tls());
    assert_eq!(config.rate_limit.requests_per_day, Some(18_000));
    assert_eq!(config.journal.url, JournalUrl::Sqlite("/var/lib/migma-eraser/journal.db".into()));
}

#[test]
fn every_value_has_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[batch]\nmax_emails = 7\nlinger = '1s'\n[amqp]\nprefix = 'p'\ndead_queue = 'd'").unwrap();
    let env = [("MIGMA_ERASER__BATCH__LINGER".into(), "2s".into()), ("PATH".into(), "x".into())];
    let config = Config::load(Some(&path), env).unwrap();
    assert_eq!((config.batch.max_emails, config.batch.linger), (7, Duration::from_secs(2)));
    let setting = |key| config.settings().iter().find(|setting| setting.key == key).unwrap();
    assert_eq!(setting("batch.linger").source, Source::Env("MIGMA_ERASER__BATCH__LINGER".into()));
    assert_eq!(setting("batch.max_emails").source, Source::File(path.clone()));
    assert_eq!(setting("journal.retention").source, Source::Default);
    assert_eq!(
        (&setting("amqp.dead_queue").value, &setting("amqp.dead_queue").source),
        (&"d".into(), &Source::File(path))
    );
    assert_eq!(setting("amqp.request_queue").value, "p.requests");
    assert_eq!(setting("amqp.request_queue").source, Source::Setting("amqp.prefix"));
}

#[test]
fn all_faults_of_all_layers_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let text = "top = 1\n[batch]\nmax_emails = 0\nlinger = 5\n[retry]\ninitial_interval = '50s'\nmax_interval = '1s'\n[nowhere]\nx = 1";
    std::fs::write(&path, text).unwrap();
    let env = [("MIGMA_ERASER__BATCH__LINGR", "1s"), ("MIGMA_ERASER__BATCH__MAX_EMAILS", "many")];
    let error = Config::load(Some(&path), env.map(|(name, value)| (name.into(), value.into()))).unwrap_err();
    let told = error.to_string();
    for part in [
        "top (",
        "nowhere.x (",
        "batch.lingr (MIGMA_ERASER__BATCH__LINGR): is no setting; did you mean MIGMA_ERASER__BATCH__LINGER?",
        "c.toml): 0 is out of range; give a whole number from 1 to 1000",
        "batch.max_emails (MIGMA_ERASER__BATCH__MAX_EMAILS): \"many\" is not a whole number",
        "5 has no unit",
        "c.toml): the longest interval, 1s, is shorter than the first, 50s; raise retry.max_interval",
    ] {
        assert!(told.contains(part), "{part:?} is missing in {told}");
    }
    assert_eq!(error.faults.len(), 7, "{told}");
}

#[test]
fn unknown_keys_get_a_hint() {
    tells(&faults("[amqp]\nurll = 'x'"), &["amqp.urll (t.toml): is no setting; did you mean amqp.url?"]);
    tells(&faults("[batch]\nrequests_per_minute = 5"), &["did you mean rate_limit.requests_per_minute?"]);
    tells(&faults("linger = '1s'"), &["linger (t.toml): is no section; did you mean batch.linger?"]);
    tells(&faults("batch = 3"), &["write [batch] and its keys below"]);
    tells(&faults("[amqp]\nquite_another_thing = 1"), &["`migma-eraser config` lists all"]);
    tells(&faults("[amqp.tls]\nca = 'x'"), &["amqp.tls (t.toml): is no setting"]);
    tells(&env_faults(&[("MIGMA_ERASER__LINGER", "1s")]), &["did you mean MIGMA_ERASER__BATCH__LINGER?"]);
    tells(
        &env_faults(&[("MIGMA_ERASER__batch__linger", "1s")]),
        &["batch__linger): is no setting; did you mean MIGMA_ERASER__BATCH__LINGER?"],
    );
}

#[test]
fn wrong_types_and_ranges_are_told_with_what_is_wanted() {
    for (text, parts) in [
        (
            "[batch]\nmax_emails = '10'",
            &["batch.max_emails (t.toml): is a text; give a whole number from 1 to 1000"][..],
        ),
        ("[batch]\nmax_emails = 1001", &["1001 is out of range"]),
        ("[batch]\nmax_emails = 10.5", &["is a number with a fraction"]),
        ("[batch]\nlinger = 'soon'", &["\"soon\" is not a duration", "from 0s to 1m", "\"30s\""]),
        ("[batch]\nlinger = '2m'", &["2m is out of range"]),
        ("[amqp]\nheartbeat = '1500ms'", &["1500ms is out of range", "in whole seconds"]),
        ("[amqp]\nconsumer_timeout = true", &["is true or false", "give a duration"]),
        ("[amqp]\nbuffer_bytes = '64MB'", &["\"64MB\" is not a size", "\"64MiB\""]),
        ("[amqp]\nbuffer_bytes = -1", &["\"-1\" is not a size"]),
        ("[amqp]\ndeclare_topology = 'yes'", &["is a text; give true or false"]),
        ("[amqp]\nprefix = ''", &["is empty; give a name of 1 to 240 bytes"]),
        ("[amqp]\ndead_queue = 'amq.dead'", &["keeps to itself"]),
        ("[amqp]\nprefix = 'amq'", &["keeps to itself"]),
        ("[amqp]\nurl = { host = 'x' }", &["amqp.url (t.toml): is a table"]),
        ("[rate_limit]\nrequests_per_minute = 0", &["0 is out of range", "1 to 1000000"]),
        ("[rate_limit]\nrequests_per_minute = 1000001", &["out of range"]),
        ("[rate_limit]\nburst = 100001", &["out of range"]),
        ("[rate_limit]\nrequests_per_day = 0", &["0 is out of range", "or \"none\""]),
        ("[retry]\nmultiplier = 0.5", &["0.5 is out of range"]),
        ("[retry]\nmultiplier = nan", &["out of range"]),
        ("[migma]\nallowed_projects = 'p'", &["is a text; give a list of project ids"]),
        ("[migma]\nallowed_projects = [1]", &["holds a whole number"]),
        ("[migma]\nallowed_projects = ['']", &["holds an empty project id"]),
        ("[journal]\nretention = '23h'", &["23h is out of range", "from 24h"]),
        ("[admin]\nlisten = 'localhost:1'", &["give an IP address with a port"]),
        ("[log]\nformat = 'xml'", &["\"xml\" is no log format"]),
    ] {
        tells(&faults(text), parts);
    }
}

#[test]
fn the_environment_is_read_by_the_type_of_the_setting() {
    let config = from_env(&[
        ("MIGMA_ERASER__MIGMA__DEFAULT_PROJECT_ID", "0123"),
        ("MIGMA_ERASER__MIGMA__ALLOWED_PROJECTS", "0123, true"),
        ("MIGMA_ERASER__AMQP__PREFIX", "1e3"),
        ("MIGMA_ERASER__AMQP__BUFFER_BYTES", "67108865"),
        ("MIGMA_ERASER__RATE_LIMIT__REQUESTS_PER_MINUTE", "1_000"),
        ("MIGMA_ERASER__RATE_LIMIT__REQUESTS_PER_DAY", "none"),
        ("MIGMA_ERASER__RETRY__MULTIPLIER", "3"),
        ("MIGMA_ERASER__OUTCOME__REPLY_TO", "true"),
        ("MIGMA_ERASER__ADMIN__LISTEN", "[::1]:0"),
    ])
    .unwrap();
    assert_eq!(config.migma.default_project_id.unwrap().as_str(), "0123");
    assert_eq!(config.migma.allowed_projects.iter().map(ProjectId::as_str).collect::<Vec<_>>(), ["0123", "true"]);
    assert_eq!(config.amqp.prefix, "1e3");
    assert_eq!(config.amqp.buffer_bytes, 67_108_865);
    assert_eq!(config.rate_limit.requests_per_minute.get(), 1000);
    assert!((config.retry.multiplier - 3.0).abs() < f64::EPSILON && config.outcome.reply_to);

    let projects =
        |text| from_env(&[("MIGMA_ERASER__MIGMA__ALLOWED_PROJECTS", text)]).map(|c| c.migma.allowed_projects.len());
    assert_eq!(projects("").unwrap(), 0);
    assert_eq!(projects(r#"["a,b", "c", "c"]"#).unwrap(), 2);
    tells(&env_faults(&[("MIGMA_ERASER__MIGMA__ALLOWED_PROJECTS", "[a")]), &["no TOML array"]);
    tells(&env_faults(&[("MIGMA_ERASER__BATCH__MAX_EMAILS", "")]), &["is empty (unset the variable"]);
    tells(&env_faults(&[("MIGMA_ERASER__OUTCOME__REPLY_TO", "1")]), &["\"1\" is not true or false"]);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_a_fault() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = OsString::from_vec(vec![0xff]);
    let error = Config::load(None, [("MIGMA_ERASER__AMQP__PREFIX".into(), value)]).unwrap_err();
    tells(&[error.faults[0].to_string()], &["amqp.prefix (MIGMA_ERASER__AMQP__PREFIX): is not UTF-8"]);
}

#[test]
fn a_broker_url_is_masked_wherever_it_is_shown() {
    let config = Config::from_toml("t.toml", "[amqp]\nurl = 'amqps://u:hunt%40er@h:5671/v'").unwrap();
    assert_eq!(config.amqp.url.to_string(), "amqps://u:***@h:5671/v");
    assert_eq!(config.settings()[0].value, "amqps://u:***@h:5671/v");
    assert!(!format!("{config:?}").contains("hunt"));
    assert!(config.amqp.url.expose().eq(["amqps://u:hunt%40er@h:5671/v"]));
}

#[test]
fn the_nodes_of_a_cluster_are_named_with_commas_between() {
    let text = "[amqp]\nurl = 'amqps://u:hunter2@a/v, amqps://u:hunter2@b:5673/v,amqp://127.0.0.1/v'";
    let config = Config::from_toml("t.toml", text).unwrap();
    let urls: Vec<_> = config.amqp.url.expose().collect();
    assert_eq!(urls, ["amqps://u:hunter2@a/v", "amqps://u:hunter2@b:5673/v", "amqp://127.0.0.1/v"]);
    assert_eq!(config.amqp.url.to_string(), "amqps://u:***@a/v,amqps://u:***@b:5673/v,amqp://127.0.0.1/v");
    assert!(config.amqp.url.is_private() && !config.amqp.url.is_tls());
    for (nodes, private) in [("amqp://::1,amqps://h", true), ("amqp://localhost,amqp://h", false)] {
        let nodes = nodes.replace("::1", "[::1]");
        let config = Config::from_toml("t.toml", &format!("[amqp]\nurl = '{nodes}'")).unwrap();
        assert_eq!(config.amqp.url.is_private(), private, "{nodes}");
    }
}

#[test]
fn nodes_with_different_vhosts_are_no_cluster() {
    tells(&faults("[amqp]\nurl = 'amqp://a/v,amqp://b/w'"), &["amqp.url (t.toml): names different vhosts"]);
    assert!(faults("[amqp]\nurl = 'amqp://a,amqp://b/,amqp://c/%2f,amqp://d/%2F'").is_empty());
}

#[test]
fn a_wrong_broker_url_is_told_without_it() {
    for url in [
        "hunter2",
        "http://u:hunter2@h",
        "amqp://u:hunter2@",
        "amqp://u:hunter2@h:99999",
        "amqp://u:hunter2@h?heartbeat=1",
        "amqp://u:1#hunter2@h",
        "amqp://u:1/hunter2@h",
        "amqp://u:1?hunter2@h",
        "amqp:hunter2",
        "amqp://u:1,hunter2@h",
        "amqp://u:hunter2@h,",
        "amqp://h/hunter2,amqp://h/x",
    ] {
        let told = faults(&format!("[amqp]\nurl = '{url}'"));
        tells(&told, &["amqp.url (t.toml): "]);
        assert!(!told[0].contains("hunter"), "{told:?}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_told_by_its_place_and_not_quoted() {
    for text in [
        "[amqp]\nurl = amqp://u:hunter2@h\n",
        "[amqp]\nurl = 'amqp://u:hunter2@h",
        "[amqp]\nurl = 'a' hunter2",
        "[amqp]\nurl = \"\\hunter2\"",
    ] {
        let told = faults(text);
        tells(&told, &["t.toml: is not TOML at line 2, column "]);
        assert!(!told[0].contains("hunter"), "{told:?}");
    }
    tells(&faults("[batch]\nlinger='1s'\nlinger='2s'"), &["line 3, column 1: duplicate key"]);
    let error = Config::load(Some(Path::new("/nowhere/c.toml")), []).unwrap_err();
    tells(&[error.faults[0].to_string()], &["/nowhere/c.toml: cannot read this file"]);
}

#[test]
fn an_api_key_in_the_settings_is_refused_without_quoting_it() {
    for told in [faults("[migma]\napi_key = 'sk_hidden'"), env_faults(&[("MIGMA_ERASER__MIGMA__API_KEY", "sk_hidden")])]
    {
        tells(&told, &["migma.api_key (", "MIGMA_API_KEY", "migma.api_key_file"]);
        assert!(!told[0].contains("sk_hidden"));
    }
}

#[test]
fn the_api_is_https_or_on_this_machine() {
    for good in ["https://h", "https://h:8443/api/", "http://localhost:1", "http://127.9.9.9", "http://[::1]:80"] {
        assert!(faults(&format!("[migma]\nbase_url = '{good}'")).is_empty(), "{good}");
    }
    for (bad, part) in [
        ("http://api.migma.ai", "use https"),
        ("http://localhost.example.com", "use https"),
        ("http://[::2]", "use https"),
        ("https://u:hunter2@h", "holds a user or password"),
        ("https://u/hunter2@h", "holds a user or password"),
        ("https://h?key=hunter2", "holds a ?"),
        ("https://h#x", "holds a ?"),
        ("ftp://h", "other than https"),
        ("unix:/x", "names no host"),
        ("h", "is not a URL"),
    ] {
        let told = faults(&format!("[migma]\nbase_url = '{bad}'"));
        tells(&told, &[part]);
        assert!(!told[0].contains("hunter2"));
    }
}

#[test]
fn the_journal_is_a_file_or_a_database() {
    for (bad, part) in [
        ("postgres:///d", "names no host"),
        ("postgres://u:hunter2@h/d#x", "holds a #"),
        ("postgres://u:a/hunter2@h/d", "is not a URL"),
        ("postgres://u:1/hunter2@h/d", "holds an @ after the host"),
        ("postgres://u@h/d?password=hunter2", "holds the password behind the ?"),
        ("postgres://u:p?hunter2@h/d", "is not a URL"),
        ("postgres://u@h/d?hunter2=1", "a parameter that there is not"),
        ("postgres://u@h/d?sslmode=hunter2", "an sslmode that there is not"),
        ("postgres://u@h/d?port=hunter2", "a port that is no number"),
        ("mysql://u:hunter2@h/d", "does not start with sqlite:// or postgres://"),
        ("sqlite::memory:", "does not start with sqlite:// or postgres://"),
        ("sqlite://:memory:", "in memory"),
        ("sqlite://", "names no file"),
        ("sqlite://data/", "names no file"),
        ("sqlite://a.db?mode=ro", "options"),
    ] {
        let told = faults(&format!("[journal]\nurl = '{bad}'"));
        tells(&told, &[part]);
        assert!(!told[0].contains("hunter2"));
    }
}

#[test]
fn a_database_is_shown_without_its_password() {
    let config =
        Config::from_toml("t.toml", "[journal]\nurl = 'postgres://u:hunter2@db/d?sslmode=verify-full'").unwrap();
    let JournalUrl::Postgres(url) = &config.journal.url else { panic!("a database") };
    assert_eq!(url.expose(), "postgres://u:hunter2@db/d?sslmode=verify-full");
    assert_eq!(url.to_string(), "postgres://u:***@db/d?sslmode=verify-full");
    assert!(url.is_verified() && !url.is_local());
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.settings().iter().all(|setting| !format!("{:?}", setting.value).contains("hunter2")));
    for local in [
        "postgresql://localhost/d",
        "postgres://u@127.0.0.1:5433/d",
        "postgres://[::1]/d",
        "postgres:///d?host=/run/pg",
    ] {
        let config = Config::from_toml("t.toml", &format!("[journal]\nurl = '{local}'")).unwrap();
        assert!(matches!(&config.journal.url, JournalUrl::Postgres(url) if url.is_local()), "{local}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_faults() {
    tells(
        &faults("[amqp]\nbuffer_bytes = '1MiB'"),
        &["amqp.buffer_bytes (t.toml), amqp.max_message_bytes (default): a message of 12MiB"],
    );
    tells(&faults("[amqp]\nconsumer_timeout = '1m'"), &["half the consumer timeout, 30s", "(250ms + 30s)"]);
    tells(&faults("[migma]\ndefault_project_id = 'a'\nallowed_projects = ['b']"), &["not among the allowed"]);
    tells(&faults("[amqp]\ndead_queue = 'contacts.deletion.returned'"), &["both queues are called"]);
    tells(&faults("[amqp]\ndead_exchange = 'x'\noutcome_exchange = 'x'"), &["both exchanges are called \"x\""]);
    // Nothing is said of a contradiction with a value that is wrong anyway.
    tells(&faults("[retry]\nmax_interval = '2h'\ninitial_interval = '10m'"), &["2h is out of range"]);
}

proptest! {
    #[test]
    fn the_environment_overrides_the_file(in_file in 1usize..=1000, in_env in 1usize..=1000, linger in 0u64..60_000) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, format!("[batch]\nmax_emails = {in_file}\nlinger = '{linger}ms'")).unwrap();
        let env = [("MIGMA_ERASER__BATCH__MAX_EMAILS".into(), in_env.to_string().into())];
        let config = Config::load(Some(&path), env).unwrap();
        prop_assert_eq!(config.batch.max_emails, in_env);
        prop_assert_eq!(config.batch.linger, Duration::from_millis(linger));
        let alone = Config::load(Some(&path), []).unwrap();
        prop_assert_eq!(alone.batch.max_emails, in_file);
    }

    #[test]
    fn no_text_in_any_setting_makes_it_panic(text in "\\PC{0,40}") {
        let env = KEYS.iter().map(|key| (layers::spelled(key).into(), text.clone().into()));
        let _ = Config::load(None, env);
        let _ = Config::from_toml("t.toml", &text);
    }
}
