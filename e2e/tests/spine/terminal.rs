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

const ROWS: usize = 24;
const COLUMNS: usize = 80;

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
        let size = Winsize { ws_row: ROWS as u16, ws_col: COLUMNS as u16, ws_xpixel: 0, ws_ypixel: 0 };
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

    /// Waits until all of `words` are on the screen.
    pub(crate) fn wait_for(&mut self, words: &[&str]) {
        let until = Instant::now() + LIMIT;
        loop {
            let shown = screen(&self.seen);
            if words.iter().all(|word| shown.contains(word)) {
                return;
            }
            match self.drawn.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(why) => panic!("not all of {words:?} are there ({why}):\n{shown}"),
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

/// The screen after everything that was drawn: only what `top` uses is understood.
fn screen(bytes: &[u8]) -> String {
    let mut rows = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let drawn = text(bytes);
    let mut characters = drawn.chars();
    while let Some(c) = characters.next() {
        if c != '\u{1b}' {
            if let Some(cell) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = c;
            }
            column += 1;
            continue;
        }
        // `ESC [ parameters letter`
        let sequence: Vec<char> = characters.by_ref().take_while(|c| !c.is_ascii_alphabetic()).collect();
        let parameters: String = sequence.into_iter().filter(|c| c.is_ascii_digit() || *c == ';').collect();
        if let Some((to_row, to_column)) = parameters.split_once(';')
            && let (Ok(to_row), Ok(to_column)) = (to_row.parse::<usize>(), to_column.parse::<usize>())
            && drawn[..drawn.len() - characters.as_str().len()].ends_with('H')
        {
            (row, column) = (to_row.saturating_sub(1), to_column.saturating_sub(1));
        }
    }
    rows.into_iter().map(|row| row.into_iter().collect::<String>() + "\n").collect()
}
