//! `ubique top`: the status of an agent, live in the terminal.
//!
//! A thread asks the agent once a second, so that a slow agent delays no key; nothing here changes anything. The
//! terminal is put back whatever ends the program: a key, SIGINT, SIGTERM, SIGHUP, a panic.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use ubique_node::admin::{self, Reply, Request, Status};

use crate::Exit;
use crate::arguments::{AgentArguments, Color};
use crate::run::chain;
use crate::say::say;
use crate::view::live::{View, draw};

/// How often the agent is asked.
const REFRESH: Duration = Duration::from_secs(1);

/// How often keys and news are looked for.
const TURN: Duration = Duration::from_millis(50);

/// How often the ages on the screen are brought up to date.
const REDRAW: Duration = Duration::from_millis(500);

/// What came of asking.
type Answer = Result<Box<Status>, String>;

/// `ubique top`.
pub fn top(arguments: &AgentArguments, color: Color) -> Exit {
    let socket = match crate::admin::socket(arguments, color) {
        Ok(socket) => socket,
        Err(exit) => return exit,
    };
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        say!("ubique: `top` needs a terminal; `ubique status` prints the same once");
        return Exit::BadInput;
    }
    match live(socket, color) {
        Ok(()) => Exit::Fine,
        Err(error) => {
            say!("ubique: the terminal cannot be used: {error}");
            Exit::CouldNotRun
        }
    }
}

fn live(socket: PathBuf, color: Color) -> io::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone())?;
    }
    let (wish, wishes) = sync_channel(1);
    let (news, answers) = sync_channel(1);
    std::thread::spawn(move || ask_again(&socket, &wishes, &news));
    let mut terminal = ratatui::try_init()?;
    let result = turns(&mut terminal, &ended, &wish, &answers, color);
    ratatui::restore();
    result
}

/// Asks every second, or sooner when told to, until nobody listens.
fn ask_again(socket: &std::path::Path, wishes: &Receiver<()>, news: &SyncSender<Answer>) {
    loop {
        let answer = match admin::request(socket, &Request::Status) {
            Ok(Reply::Status(status)) => Ok(status),
            Ok(_) => Err("the reply of the agent is not a status".to_owned()),
            Err(error) => Err(chain(&error)),
        };
        let told = news.send(answer).is_ok();
        if !told || wishes.recv_timeout(REFRESH) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

fn turns(
    terminal: &mut DefaultTerminal,
    ended: &AtomicBool,
    wish: &SyncSender<()>,
    answers: &Receiver<Answer>,
    color: Color,
) -> io::Result<()> {
    let mut view = View { status: None, error: None, fetched: None, help: false, color: color.stdout };
    let mut drawn: Option<std::time::Instant> = None;
    while !ended.load(Ordering::Relaxed) {
        let mut news = false;
        for answer in answers.try_iter() {
            news = true;
            match answer {
                Ok(status) => {
                    view.status = Some(status);
                    view.fetched = Some(Timestamp::now());
                    view.error = None;
                }
                Err(error) => view.error = Some(error),
            }
        }
        if event::poll(TURN)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match meaning(key) {
                    Some(Key::Quit) if view.help => view.help = false,
                    Some(Key::Quit) => return Ok(()),
                    // One that waits already is as good.
                    Some(Key::Refresh) => drop(wish.try_send(())),
                    Some(Key::Help) => view.help = !view.help,
                    Some(Key::Interrupt) => return Ok(()),
                    None => {}
                },
                _ => {}
            }
            news = true;
        }
        if news || drawn.is_none_or(|at| at.elapsed() >= REDRAW) {
            terminal.draw(|frame| draw(frame, &view, Timestamp::now()))?;
            drawn = Some(std::time::Instant::now());
        }
    }
    Ok(())
}

enum Key {
    Quit,
    Interrupt,
    Refresh,
    Help,
}

fn meaning(key: KeyEvent) -> Option<Key> {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('r') => Some(Key::Refresh),
        KeyCode::Char('?' | 'h') => Some(Key::Help),
        _ => None,
    }
}
