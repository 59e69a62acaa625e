//! Following what trains elsewhere: `top` in a terminal, `watch` and `wait` in scripts.

use crate::phalanx::{Place, config, signal, start_coordinator, text};
use crate::terminal::Screen;

#[test]
fn top_shows_a_run_stops_it_and_gives_the_terminal_back() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    launch.wait_for_step(30);

    let mut top = Screen::start(&place, &["top"]);
    top.wait_for(&["1 of 1 worker connected", "Runs", "digits-vit", "running", "SAMPLES/S", "no sweeps"]);
    top.press("\r");
    top.wait_for(&["Loss (line: training", "Accuracy (held out)", "Log", "coordinator:", "generation 1, 0 lost"]);
    top.press("?");
    top.wait_for(&["another part of the screen"]);
    top.press("x");
    top.press("s");
    top.wait_for(&["Stop digits-vit after the step in progress"]);
    top.press("y");
    let ended = launch.wait_for_end();
    assert_eq!(ended["state"], "stopped", "{ended}");
    top.wait_for(&["stopped"]);
    top.press("q");
    assert!(top.end().success());
}

#[test]
fn a_signal_ends_top_as_its_key_does() {
    let place = Place::new();
    let (_coordinator, _) = start_coordinator(&place, "127.0.0.1:0");
    for name in ["TERM", "INT"] {
        let mut top = Screen::start(&place, &["top"]);
        top.wait_for(&["no worker has connected yet"]);
        signal(name, top.pid());
        assert!(top.end().success(), "{name}");
    }
}

#[test]
fn top_needs_a_terminal_and_a_coordinator() {
    let place = Place::new();
    let output = place.run(&["top"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("hint: phalanx status is for scripts"), "{}", text(&output.stderr));
}

#[test]
fn watching_ends_with_the_run_and_leaving_does_not_stop_it() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    launch.wait_for_step(20);

    let mut watch = place.start(&["watch", "digits-vit", "--json"]);
    watch.wait_for_step(25);
    signal("INT", watch.pid());
    assert_eq!(watch.output().status.code(), Some(75), "it left before the end");
    assert_eq!(place.run(&["wait", "digits-vit", "--for", "step=60"]).status.code(), Some(0));
    let late = place.run(&["wait", "digits-vit", "--for", "step=1000000", "--timeout", "200ms"]);
    assert_eq!(
        (late.status.code(), text(&late.stderr)),
        (Some(75), "digits-vit is not there after 200ms\n".to_owned())
    );

    let mut watch = place.start(&["watch", "digits-vit", "--json"]);
    watch.wait_for_step(60);
    assert!(place.run(&["stop", "digits-vit"]).status.success());
    assert_eq!(watch.wait_for_end()["state"], "stopped");
    assert_eq!(watch.output().status.code(), Some(75), "as launch ends");
    launch.wait_for_end();
    launch.wait_for_exit();

    // What has ended is told without a coordinator.
    for (arguments, code) in [
        (&["wait", "digits-vit"][..], 75),
        (&["wait", "digits-vit", "--for", "ended"], 0),
        (&["wait", "digits-vit", "--for", "step=20"], 0),
        (&["wait", "digits-vit", "--for", "steps"], 2),
        (&["wait", "nobody"], 2),
        (&["watch", "digits-vit"], 75),
        (&["watch", "nobody"], 2),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_run_that_broke_off_is_not_waited_for() {
    let place = Place::new();
    let mut launch = place.start(&["launch", &config("digits-vit.yaml"), "--workers", "1", "--json"]);
    launch.wait_for_step(5);
    signal("KILL", launch.pid());
    launch.wait_for_exit();
    for verb in ["watch", "wait"] {
        let output = place.run(&[verb, "digits-vit"]);
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("hint: phalanx resume digits-vit"), "{}", text(&output.stderr));
    }
}
