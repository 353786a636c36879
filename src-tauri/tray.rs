//! The icon in the tray: how the site is, by shape and colour, and a menu to open and to quit.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use hospes_ipc::attention::Mood;
use hospes_ipc::local::{EngineState, Local};
use tauri::image::Image;
use tauri::menu::{Menu, MenuItem, PredefinedMenuItem};
use tauri::tray::{TrayIcon, TrayIconBuilder};
use tauri::{AppHandle, Wry};

use crate::window;
use crate::words::Speech;

const OPEN: &str = "open";
const QUIT: &str = "quit";

/// The icon, where the desktop has a place for one.
pub(crate) struct Tray {
    parts: Option<Parts>,
    speech: Arc<Speech>,
    shown: Mutex<Option<(Mood, bool, &'static str)>>,
}

struct Parts {
    icon: TrayIcon,
    state: MenuItem<Wry>,
    open: MenuItem<Wry>,
    quit: MenuItem<Wry>,
}

impl Tray {
    /// Puts the icon in the tray.
    pub(crate) fn new(app: &AppHandle, local: Arc<Local>, speech: Arc<Speech>) -> Self {
        // The library behind the tray is found at run time, and its absence is a panic rather than an error. The window
        // does without: a second start shows it again.
        let made = std::panic::catch_unwind(AssertUnwindSafe(|| make(app, local, &speech)));
        let parts = match made {
            Ok(Ok(parts)) => Some(parts),
            Ok(Err(error)) => {
                tracing::warn!(%error, "there is no icon in the tray");
                None
            }
            Err(_) => {
                tracing::warn!("there is no icon in the tray: this desktop has no library for one");
                None
            }
        };
        Self { parts, speech, shown: Mutex::new(None) }
    }

    /// Shows how the site is.
    pub(crate) fn show(&self, mood: Mood, engine: &EngineState) {
        let Some(parts) = &self.parts else { return };
        let words = self.speech.words();
        let here = *engine == EngineState::Here;
        let state = match mood {
            Mood::Alarm => words.state_alarm,
            Mood::Deciding => words.state_deciding,
            Mood::Working => words.state_working,
            Mood::Idle => words.state_idle,
            Mood::Away => words.state_away,
        };
        let now = Some((mood, here, state));
        if std::mem::replace(&mut *self.shown.lock().unwrap_or_else(PoisonError::into_inner), now) == now {
            return;
        }
        let quit = if here { words.quit_here } else { words.quit_service };
        for step in [
            parts.icon.set_icon(Some(marked(mood))),
            parts.icon.set_tooltip(Some(&format!("Hospes: {state}"))),
            parts.state.set_text(state),
            parts.open.set_text(words.open),
            parts.quit.set_text(quit),
        ] {
            if let Err(error) = step {
                tracing::warn!(%error, "the tray cannot be changed");
            }
        }
    }
}

fn make(app: &AppHandle, local: Arc<Local>, speech: &Speech) -> tauri::Result<Parts> {
    let words = speech.words();
    let state = MenuItem::new(app, words.state_away, false, None::<&str>)?;
    let open = MenuItem::with_id(app, OPEN, words.open, true, None::<&str>)?;
    let quit = MenuItem::with_id(app, QUIT, words.quit_service, true, None::<&str>)?;
    let line = PredefinedMenuItem::separator(app)?;
    let menu = Menu::with_items(app, &[&state, &line, &open, &quit])?;
    let icon = TrayIconBuilder::new()
        .icon(marked(Mood::Away))
        .tooltip("Hospes")
        .menu(&menu)
        .on_menu_event(move |app, event| match event.id().as_ref() {
            OPEN => window::show(app),
            QUIT => leave(app.clone(), local.clone()),
            _ => {}
        })
        .build(app)?;
    Ok(Parts { icon, state, open, quit })
}

/// Ends the app, and before it an engine of its own in good order.
fn leave(app: AppHandle, local: Arc<Local>) {
    tauri::async_runtime::spawn(async move {
        local.stop().await;
        app.exit(0);
    });
}

/// Side of the mark that is drawn over the icon, in pixels of the icon's 32.
const MARK: u32 = 15;

/// The icon with a mark in its corner: nothing when idle, a ring when working, a disc when a person must decide, a square
/// for an alarm, and pale where the engine is away. The shape tells, not the colour alone.
fn marked(mood: Mood) -> Image<'static> {
    const ICON: Image<'_> = tauri::include_image!("icons/32x32.png");
    let (width, height) = (ICON.width(), ICON.height());
    let mut pixels = ICON.rgba().to_vec();
    let colour: [u8; 3] = match mood {
        Mood::Alarm => [200, 30, 30],
        Mood::Deciding => [224, 140, 0],
        Mood::Working => [0, 120, 120],
        Mood::Idle => return Image::new_owned(pixels, width, height),
        Mood::Away => {
            pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha /= 3);
            return Image::new_owned(pixels, width, height);
        }
    };
    let centre = f64::from(MARK - 1) / 2.0;
    for (y, x) in (0..MARK).flat_map(|y| (0..MARK).map(move |x| (y, x))) {
        let distance = (f64::from(x) - centre).hypot(f64::from(y) - centre);
        // A white rim keeps the mark apart from the icon beneath it.
        let (inside, rim) = match mood {
            Mood::Alarm => (true, x == 0 || y == 0),
            Mood::Working => (distance <= centre && distance >= centre - 4.0, distance > centre - 1.0),
            _ => (distance <= centre, distance > centre - 1.0),
        };
        if !inside {
            continue;
        }
        let at = ((height - MARK + y) * width + (width - MARK + x)) as usize * 4;
        let paint = if rim { [255; 3] } else { colour };
        if let Some(pixel) = pixels.get_mut(at..at + 4) {
            pixel.copy_from_slice(&[paint[0], paint[1], paint[2], 255]);
        }
    }
    Image::new_owned(pixels, width, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mood_has_a_mark_of_its_own() {
        let moods = [Mood::Alarm, Mood::Deciding, Mood::Working, Mood::Idle, Mood::Away];
        let shapes: std::collections::BTreeSet<Vec<bool>> = moods[..4]
            .iter()
            .map(|mood| {
                // By shape alone: which pixels differ from the plain icon.
                let (plain, marked) = (marked(Mood::Idle), marked(*mood));
                plain.rgba().chunks(4).zip(marked.rgba().chunks(4)).map(|(a, b)| a != b).collect()
            })
            .collect();
        assert_eq!(shapes.len(), 4);
    }
}
