//! `completions` and `man`: shells and `man` take what they are given.

use std::process::{Command, Stdio};

use crate::support::World;
use crate::support::console::run;

#[tokio::test(flavor = "multi_thread")]
async fn bash_completes_commands_by_the_script_that_it_is_given() {
    let world = World::new().await;
    let script = run(&world, &["completions", "bash"]).await.with(0).out;
    let asking = "\nCOMP_WORDS=(migma-eraser wa) COMP_CWORD=1; _migma__eraser migma-eraser wa migma-eraser; echo \"${COMPREPLY[@]}\"";
    let asked = Command::new("bash").args(["-c", &(script + asking)]).stderr(Stdio::inherit()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "watch");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = run(&world, &["completions", shell]).await.with(0).out;
        assert!(script.contains("watch") && script.contains("show-addresses"), "{shell}");
    }
    run(&world, &["completions", "csh"]).await.with(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_manual_page() {
    let world = World::new().await;
    let folder = world.folder.path().join("man/man1");
    let ended = run(&world, &["man", "--out", folder.to_str().unwrap()]).await.with(0);
    assert!(ended.out.contains(" pages are in "), "{ended:?}");
    for name in ["migma-eraser", "migma-eraser-watch", "migma-eraser-submit"] {
        let page = std::fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("Examples:"), "{name}");
    }
    let first = run(&world, &["man"]).await.with(0).out;
    assert_eq!(first, std::fs::read_to_string(folder.join("migma-eraser.1")).unwrap());
    let ended = run(&world, &["man", "--out", "/proc/nowhere"]).await.with(1);
    assert!(ended.err.contains("name a folder that you may write to"), "{ended:?}");
}
