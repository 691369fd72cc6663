//! The terminal as a screen: whatever was on it comes back at the end, be that a key, a signal, an error or a panic.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::keys::{Key, Keys};
use super::view::{Line, Style};

/// The alternate screen, no cursor, no wrapping of lines; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Home, and what to end a line and the frame with, so that nothing of the last frame stays.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[0m\x1b[K";
const END_OF_FRAME: &str = "\x1b[J";

/// The screen while it is ours.
#[derive(Debug)]
pub(super) struct Screen {
    keyboard: Option<Keyboard>,
    keys: Keys,
}

/// The terminal that controls this process, and how it was set.
#[derive(Debug)]
struct Keyboard {
    tty: File,
    before: Termios,
    bytes: mpsc::Receiver<Vec<u8>>,
}

impl Screen {
    /// Takes the screen. Without a terminal to read keys from there are none, and signals have to do.
    pub(super) fn take() -> io::Result<Self> {
        let screen = Self { keyboard: Keyboard::open().ok(), keys: Keys::default() };
        write(ENTER)?;
        Ok(screen)
    }

    /// Columns and rows, as they are now.
    pub(super) fn size() -> (usize, usize) {
        const ASSUMED: (usize, usize) = (80, 24);
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => ASSUMED,
        }
    }

    /// Shows `lines`, in place of what was there. There must be no more than fit.
    pub(super) fn draw(lines: &[Line]) -> io::Result<()> {
        let mut frame = String::from(HOME);
        for (at, line) in lines.iter().enumerate() {
            frame.push_str(if at > 0 { "\r\n" } else { "" });
            frame.push_str(match line.style {
                Style::Plain => "",
                Style::Strong => "\x1b[1m",
                Style::Heading => "\x1b[7m",
                Style::Faint => "\x1b[2m",
            });
            frame.push_str(&line.text);
            frame.push_str(END_OF_LINE);
        }
        frame.push_str(END_OF_FRAME);
        write(&frame)
    }

    /// The keys that are pressed next; never, where there is no keyboard. Nothing is lost if this is dropped.
    pub(super) async fn pressed(&mut self) -> Vec<Key> {
        let Some(keyboard) = &mut self.keyboard else { return std::future::pending().await };
        match keyboard.bytes.recv().await {
            Some(bytes) => self.keys.feed(&bytes),
            // The terminal has gone.
            None => vec![Key::Char('q')],
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell, and nothing left to try.
        let _ = write(LEAVE);
        if let Some(Keyboard { tty, before, .. }) = &self.keyboard {
            let _ = tcsetattr(tty, OptionalActions::Now, before);
        }
    }
}

impl Keyboard {
    fn open() -> io::Result<Self> {
        let tty = File::options().read(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open("/dev/tty")?;
        let before = tcgetattr(&tty)?;
        let mut keys_at_once = before.clone();
        keys_at_once.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // Ctrl-C stays a signal; to be stopped or to dump core would leave the terminal as it is now.
        keys_at_once.special_codes[SpecialCodeIndex::VSUSP] = 0;
        keys_at_once.special_codes[SpecialCodeIndex::VQUIT] = 0;
        keys_at_once.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys_at_once.special_codes[SpecialCodeIndex::VTIME] = 0;
        let bytes = listen(tty.try_clone()?)?;
        tcsetattr(&tty, OptionalActions::Now, &keys_at_once)?;
        Ok(Self { tty, before, bytes })
    }
}

/// What is typed, read on a thread of its own: a terminal cannot be waited for without a thread or unsafe code. It is
/// not joined, since nothing ends its last read but the end of the process.
fn listen(mut tty: File) -> io::Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(16);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(length @ 1..) = tty.read(&mut bytes) {
            if sender.blocking_send(bytes[..length].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
