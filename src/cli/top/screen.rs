//! The terminal in full-screen mode; its previous content is restored at the end, be that a key, a signal, an error or
//! a panic.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use rustix::fs::OFlags;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::keys::{Key, Keys};
use super::view::{ScreenLine, Style};

/// The control sequences that enter the alternate screen without cursor and line wrapping, and leave it again.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The control sequences for the first position, and for the ends of a line and of a frame, which erase the previous
/// frame.
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[0m\x1b[K";
const END_OF_FRAME: &str = "\x1b[J";

/// The terminal in full-screen mode; dropping it restores the terminal.
#[derive(Debug)]
pub(super) struct Screen {
    keyboard: Option<Keyboard>,
    keys: Keys,
}

/// The controlling terminal, and its previous settings.
#[derive(Debug)]
struct Keyboard {
    tty: File,
    before: Termios,
    bytes: mpsc::Receiver<Vec<u8>>,
}

impl Screen {
    /// Enters full-screen mode. Without a controlling terminal there are no keys, and only signals end the program.
    pub(super) fn take() -> io::Result<Self> {
        let screen = Self { keyboard: Keyboard::open().ok(), keys: Keys::default() };
        write(ENTER)?;
        Ok(screen)
    }

    /// Returns the present columns and rows.
    pub(super) fn size() -> (usize, usize) {
        const ASSUMED: (usize, usize) = (80, 24);
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => ASSUMED,
        }
    }

    /// Replaces the content of the screen with `lines`, which have to fit.
    pub(super) fn draw(lines: &[ScreenLine]) -> io::Result<()> {
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

    /// Waits for the next keys; never completes without a keyboard. Cancel-safe: no key is lost.
    pub(super) async fn pressed(&mut self) -> Vec<Key> {
        let Some(keyboard) = &mut self.keyboard else { return std::future::pending().await };
        match keyboard.bytes.recv().await {
            Some(bytes) => self.keys.feed(&bytes),
            // The terminal is closed.
            None => vec![Key::Char('q')],
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Errors are ignored: nothing can be reported or done about them here.
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
        // Ctrl-C stays a signal; suspending or dumping core is disabled, since it would leave the terminal in this
        // mode.
        keys_at_once.special_codes[SpecialCodeIndex::VSUSP] = 0;
        keys_at_once.special_codes[SpecialCodeIndex::VQUIT] = 0;
        keys_at_once.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys_at_once.special_codes[SpecialCodeIndex::VTIME] = 0;
        let bytes = listen(tty.try_clone()?)?;
        tcsetattr(&tty, OptionalActions::Now, &keys_at_once)?;
        Ok(Self { tty, before, bytes })
    }
}

/// Reads the keyboard on a thread of its own, since a terminal cannot be polled without a thread or unsafe code. The
/// thread is not joined: its last read ends only with the process.
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
