//! A real pseudo-terminal with a command in it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::phalanx::{Place, text};

/// Nothing on a screen takes longer to appear, on busy cores too.
const LIMIT: Duration = Duration::from_secs(120);

/// A command that draws on a terminal of 80 columns and 24 rows.
pub(crate) struct Screen {
    child: Child,
    /// What the command was given as its terminal.
    terminal: File,
    keys: File,
    drawn: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Screen {
    pub(crate) fn start(place: &Place, arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("the name of its other end");
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("a size");
        let (terminal, keys) = (File::from(terminal), File::from(master));
        let mut command: Command = place.command(arguments);
        let end = || terminal.try_clone().expect("a file can be shared");
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color");
        let child = command.spawn().expect("the binary starts");
        let (sender, drawn) = channel();
        let mut reader = keys.try_clone().expect("a file can be shared");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(number @ 1..) = reader.read(&mut bytes) {
                // The test may have seen enough.
                let _ = sender.send(bytes[..number].to_vec());
            }
        });
        Self { child, terminal, keys, drawn, seen: Vec::new() }
    }

    pub(crate) fn pid(&self) -> u64 {
        self.child.id().into()
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until all of `words` were drawn since the last call.
    pub(crate) fn wait_for(&mut self, words: &[&str]) {
        let until = Instant::now() + LIMIT;
        loop {
            let shown = visible(&self.seen);
            if words.iter().all(|word| shown.contains(word)) {
                self.seen.clear();
                return;
            }
            match self.drawn.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(why) => panic!("never saw all of {words:?} ({why}):\n{shown}"),
            }
        }
    }

    /// Waits for the command to end, and asserts that it left the terminal as it was.
    pub(crate) fn end(mut self) -> ExitStatus {
        let status = self.child.wait().expect("a child can be waited for");
        let modes = tcgetattr(&self.terminal).expect("a terminal has modes").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "it is still raw: {modes:?}");
        while let Ok(bytes) = self.drawn.recv_timeout(Duration::from_millis(500)) {
            self.seen.extend(bytes);
        }
        let drawn = text(&self.seen);
        assert!(drawn.contains("\u{1b}[?1049l"), "the screen was not given back: {drawn:?}");
        assert!(drawn.contains("\u{1b}[?25h"), "the cursor is still hidden: {drawn:?}");
        status
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was drawn, without the sequences that move the cursor and colour.
fn visible(bytes: &[u8]) -> String {
    let mut shown = String::new();
    let whole = text(bytes);
    let mut characters = whole.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            // `ESC [ parameters letter` is all that is used.
            characters.find(|c| c.is_ascii_alphabetic());
        } else {
            shown.push(c);
        }
    }
    shown
}
