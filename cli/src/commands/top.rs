//! `phalanx top`: a full screen of what goes on, until a key or a signal ends it.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use crossterm::event::{Event, EventStream, KeyEventKind};
use ratatui::DefaultTerminal;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt;

use crate::args::TopArgs;
use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::interrupts::Interrupts;
use crate::session::must_be_live;
use crate::top::{Action, Feed, Top, draw};

/// The screen is drawn no more often: faster than people read, and little work.
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(args: TopArgs) -> Result<Exit, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let message = "top needs a terminal for its input and output";
        return Err(Failure::config(anyhow::Error::msg(message)).hint("phalanx status is for scripts"));
    }
    let url = must_be_live(&args.place)?;
    let mut interrupts = Interrupts::listen().context("cannot listen for signals")?;
    let client = Client::connect(&url).await?;
    // From here on, a panic too gives the terminal back as it was.
    let mut terminal =
        ratatui::try_init().inspect_err(|_| ratatui::restore()).context("cannot draw on this terminal")?;
    let shown = tokio::select! {
        shown = show(&mut terminal, client) => shown,
        () = interrupts.next() => Ok(()),
    };
    ratatui::restore();
    shown.map(|()| Exit::Done)
}

async fn show(terminal: &mut DefaultTerminal, client: Client) -> Result<(), Failure> {
    let mut top = Top::new(client.url());
    let (mut feed, mut news) = Feed::start(client);
    let mut keys = EventStream::new();
    let mut next_draw = Instant::now();
    let mut is_new = true;
    loop {
        tokio::select! {
            biased;
            event = keys.next() => {
                match event {
                    Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => match top.key(key) {
                        Action::None => {}
                        Action::Quit => return Ok(()),
                        Action::Open(run) => feed.open(&run),
                        Action::Close => feed.close(),
                        Action::Stop(name) => feed.stop(&name),
                    },
                    Some(Ok(_)) => {}
                    // The terminal is gone.
                    Some(Err(_)) | None => return Ok(()),
                }
                is_new = true;
                next_draw = Instant::now();
            }
            () = sleep_until(next_draw), if is_new => {
                terminal.draw(|frame| draw(frame, &top)).context("cannot draw")?;
                is_new = false;
                next_draw = Instant::now() + DRAW_EVERY;
            }
            failure = feed.broken() => return Err(failure),
            Some(heard) = news.recv() => {
                feed.watch(&heard);
                top.hear(heard);
                is_new = true;
            }
        }
    }
}
