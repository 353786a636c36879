//! The real window: the app at somebody's seat, under Xvfb, inside a session bus of its own with a keychain, driven through
//! WebKitWebDriver; and the dialogs of the operating system, which no page sees, through their own screen. In the app's place a
//! browser of the same engine can be driven.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::error::{CmdError, ErrorStatus};
pub use fantoccini::key::Key;
use fantoccini::wd::TimeoutConfiguration;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use crate::browser::{self, Own};
use crate::seat::Seat;

/// How long anything on the page may take to appear: a software-rendered window on two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(100);
/// Time for what the page has changed to be drawn.
const SETTLE: Duration = Duration::from_millis(150);
/// How long the page may take for what it is asked at once: all rules of accessibility about a long page, on a busy core.
const ASKED: Duration = Duration::from_secs(120);
/// How often something may be drawn anew, or lie behind something else, between being found and being used.
const TRIES: u32 = 10;
/// How often something is looked at until it stays where it is.
const STILL: u32 = 50;
/// Brings something into the middle of the window; where it is then.
const PLACE: &str = "const [element] = arguments; \
    element.scrollIntoView({ block: 'center', behavior: 'instant' }); \
    const { left, top, width, height } = element.getBoundingClientRect(); \
    return [left, top, width, height].join(' ')";
/// How often a window is asked for another size until its page has the one that is wanted.
const RESIZES: usize = 4;
/// Lines of what the desktop said that are told with an error.
const SAID_LINES: usize = 40;

/// A session at a seat; `$1` is the port of what drives the app. It ends with the script's input, and all that it started:
/// with whoever holds it, however that ends. Xvfb chooses the number of its screen.
const SESSION: &str = r#"
mkdir -p "$HOME/.local/share/keyrings"
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
rm -f "$HOME/.display"
setsid sh -eu -c '
    Xvfb -displayfd 3 -screen 0 1280x900x24 -nolisten tcp 3> "$HOME/.display" &
    until [ -s "$HOME/.display" ]; do sleep 0.1; done
    DISPLAY=":$(cat "$HOME/.display")"
    export DISPLAY WEBKIT_DISABLE_DMABUF_RENDERER=1 TAURI_AUTOMATION=true TAURI_WEBVIEW_AUTOMATION=true
    exec dbus-run-session -- sh -eu -c "
        echo \"\$DBUS_SESSION_BUS_ADDRESS\" > \"\$HOME/.bus\"
        echo keychain | gnome-keyring-daemon --unlock --components=secrets
        exec WebKitWebDriver --host=127.0.0.1 --port=$1
    "
' session "$1" > "$HOME/desktop.log" 2>&1 &
session=$!
cat
kill -KILL "-$session"
"#;

/// Answers the dialog with the title `$1` with the file `$2` in the person's home, by its keys: there is no window manager
/// that would give it the focus. A path that begins at the top opens the field for paths where there is none; where there is
/// one, what stands in it is replaced. The first return may close a list of suggestions only; a dialog that was not ready for
/// the first keys gets all of them once more.
const ANSWER: &str = r#"
DISPLAY=":$(cat "$HOME/.display")"
export DISPLAY
dialog=$(timeout 60 xdotool search --sync --onlyvisible --name "$1" | head -n 1)
[ -n "$dialog" ] || { echo "there is no dialog '$1'" >&2; exit 1; }
for again in 1 2 3; do
    sleep 0.3
    xdotool windowfocus --sync "$dialog" || true
    xdotool key ctrl+l
    sleep 0.3
    xdotool key ctrl+a
    xdotool type --delay 20 "$HOME/$2"
    for press in 1 2 3; do
        sleep 0.3
        xdotool key Return
        for look in $(seq 30); do
            [ -n "$(xdotool search --onlyvisible --name "$1")" ] || exit 0
            sleep 0.1
        done
    done
done
echo "the dialog '$1' does not close" >&2
exit 1
"#;

/// Closes the app's window as a person does by its frame, which nobody draws here: by the message that the frame would send,
/// which the program `$1` sends to the window that it is named.
const CLOSE: &str = r#"
DISPLAY=":$(cat "$HOME/.display")"
export DISPLAY
window=$(timeout 60 xdotool search --sync --onlyvisible --name '^Hospes$' | head -n 1)
[ -n "$window" ] || { echo "there is no window" >&2; exit 1; }
/usr/bin/python3 -c "$1" "$window"
for look in $(seq 100); do
    [ -n "$(xdotool search --onlyvisible --name '^Hospes$')" ] || exit 0
    sleep 0.1
done
echo "the window stays" >&2
exit 1
"#;

/// Sends WM_DELETE_WINDOW (ICCCM 4.2.8.1) to a window.
const DELETE: &str = r#"
import sys
from ctypes import CDLL, Structure, byref, c_char_p, c_int, c_long, c_ulong, c_void_p
class Message(Structure):
    _fields_ = [("type", c_int), ("serial", c_ulong), ("sent", c_int), ("display", c_void_p), ("window", c_ulong),
                ("kind", c_ulong), ("format", c_int), ("data", c_long * 5), ("rest", c_long * 12)]
x = CDLL("libX11.so.6")
x.XOpenDisplay.restype, x.XOpenDisplay.argtypes = c_void_p, [c_char_p]
x.XInternAtom.restype, x.XInternAtom.argtypes = c_ulong, [c_void_p, c_char_p, c_int]
x.XSendEvent.argtypes = [c_void_p, c_ulong, c_int, c_long, c_void_p]
x.XCloseDisplay.argtypes = [c_void_p]
display, window = x.XOpenDisplay(None), int(sys.argv[1])
message = Message(type=33, window=window, format=32, kind=x.XInternAtom(display, b"WM_PROTOCOLS", 0))
message.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
x.XSendEvent(display, window, 0, 0, byref(message))
x.XCloseDisplay(display)
"#;

/// Starts the app once more, which must end by itself, and waits until a window of it is to be seen.
const AGAIN: &str = r#"
DISPLAY=":$(cat "$HOME/.display")"
DBUS_SESSION_BUS_ADDRESS=$(cat "$HOME/.bus")
export DISPLAY DBUS_SESSION_BUS_ADDRESS WEBKIT_DISABLE_DMABUF_RENDERER=1
timeout 60 hospes
timeout 60 xdotool search --sync --onlyvisible --name '^Hospes$' > /dev/null
"#;

/// Prints a picture of the part `$3` × `$4` of the screen that begins at `$1`, `$2`, as PNG in base 64. The driver's own pictures
/// never come where the engine draws without a card.
pub(crate) const PICTURE: &str = r#"
export DISPLAY="${DISPLAY:-:$(cat "$HOME/.display" 2> /dev/null)}"
xwd -silent -root | xwdtopnm -quiet | pnmcut -left "$1" -top "$2" -width "$3" -height "$4" | pnmtopng -quiet -compression 9 | base64 --wrap 0
"#;

/// Kills what is left of the programs `$1` and `$2`, an app's training included, and ends once none of them has the site.
const END: &str = r#"
for process in /proc/[0-9]*; do
    case "$(readlink "$process/exe" || true)" in
        "$1" | "$2") kill -KILL "${process#/proc/}" || true ;;
    esac
done 2> /dev/null
flock --wait 60 "$HOME/.local/share/hospes/lock" true
"#;

/// The desktop of a person, on which the app is opened.
pub struct Desktop {
    // Dropped in this order.
    _session: Session,
    seat: Arc<Seat>,
    port: u16,
}

struct Session(Child);

impl Drop for Session {
    fn drop(&mut self) {
        // It closes its input first, with which it ends.
        let _ = self.0.wait();
    }
}

impl Desktop {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no port for what drives the app, or no shell.
    pub fn start(seat: Seat) -> Result<Self> {
        let port = free_port()?;
        let session = Session(seat.start(SESSION, &[&port.to_string()])?);
        Ok(Self { _session: session, seat: Arc::new(seat), port })
    }

    /// Where it stands.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// Opens the app.
    ///
    /// # Errors
    /// If it does not open, with the end of what was said.
    pub async fn open(&self) -> Result<Window> {
        let opened = connect(self.port, &self.seat.program("hospes"), &[]).await;
        Ok(Window { page: opened.with_context(|| self.said())?, screen: Screen::Seat(Arc::clone(&self.seat)) })
    }

    /// Ends the app as a crash would, and waits until its engine is gone.
    ///
    /// # Errors
    /// If the driver does not answer, or the engine goes on.
    pub async fn end(&self, window: Window) -> Result<()> {
        window.page.close().await.context("end the app")?;
        let programs = ["hospes", "hospes-site"].map(|name| self.seat.program(name).display().to_string());
        self.seat.run(END, &programs.each_ref().map(String::as_str)).context("the engine goes on without the app")?;
        Ok(())
    }

    /// Address of its session bus.
    ///
    /// # Errors
    /// If there is none.
    pub fn bus(&self) -> Result<String> {
        Ok(self.seat.read(".bus")?.trim().to_owned())
    }

    /// Closes the app's window, as a person does.
    ///
    /// # Errors
    /// If there is none, or it stays.
    pub fn close_window(&self) -> Result<()> {
        self.seat.run(CLOSE, &[DELETE]).context("close the window").map(drop)
    }

    /// Starts the app once more; it ends, and the window of the one that runs is shown.
    ///
    /// # Errors
    /// If the second one goes on, or no window is shown.
    pub fn start_again(&self) -> Result<()> {
        self.seat.run(AGAIN, &[]).context("start the app again").map(drop)
    }

    /// Answers a dialog of the operating system with a file of the person's home, which may be a new one.
    ///
    /// # Errors
    /// If there is no dialog with this title, or it does not take the file.
    pub fn answer(&self, title: &str, file: &str) -> Result<()> {
        self.seat.run(ANSWER, &[title, file]).with_context(|| format!("answer '{title}'")).map(drop)
    }

    /// The end of what app and desktop said: at what a start stays, for one.
    pub fn said(&self) -> String {
        let said = self.seat.read("desktop.log").unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(SAID_LINES)..].join("\n")
    }
}

/// A window of the app, or of a browser.
pub struct Window {
    /// The page.
    pub page: Client,
    screen: Screen,
}

/// Where a window is shown.
enum Screen {
    /// At somebody's desktop, which outlives it.
    Seat(Arc<Seat>),
    /// On a screen of its own, which ends with it.
    Own(Own),
}

impl Window {
    /// Opens a browser of the engine that the app's window is made of, on an empty page.
    ///
    /// # Errors
    /// If Xvfb, the driver or the browser cannot be started.
    pub async fn browser() -> Result<Self> {
        let (page, own) = browser::start().await?;
        Ok(Self { page, screen: Screen::Own(own) })
    }

    /// Makes the page this large, in CSS pixels, whatever its window has around it.
    ///
    /// # Errors
    /// If the page does not become that large.
    pub async fn resize(&self, width: i64, height: i64) -> Result<()> {
        let [mut inner @ .., outer_width, outer_height] = self.sizes().await?;
        let (mut wide, mut high) = (outer_width, outer_height);
        for _ in 0..RESIZES {
            if inner == [width, height] {
                return Ok(());
            }
            (wide, high) = (wide + width - inner[0], high + height - inner[1]);
            let window = self.page.set_window_size(u32::try_from(wide)?, u32::try_from(high)?);
            window.await.context("resize the window")?;
            // The page follows its window a little later.
            for _ in 0..20 {
                let [now @ .., _, _] = self.sizes().await?;
                inner = now;
                if inner == [width, height] {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
        bail!("the page is {inner:?} and does not become {width} × {height}")
    }

    /// Width and height of the page, and of its window.
    async fn sizes(&self) -> Result<[i64; 4]> {
        let script = "return [innerWidth, innerHeight, outerWidth, outerHeight].map(Math.round).join(' ')";
        let sizes = self.page.execute(script, Vec::new()).await?;
        let sizes = sizes.as_str().unwrap_or_default().split(' ').map(str::parse).collect::<Result<Vec<i64>, _>>();
        <[i64; 4]>::try_from(sizes.context("the page's sizes")?).ok().context("four sizes")
    }

    /// Presses and releases a key, wherever the focus is.
    ///
    /// # Errors
    /// If the driver does not do it.
    pub async fn key(&self, key: Key) -> Result<()> {
        let value = char::from(key);
        let keys = KeyActions::new("keyboard".to_owned());
        let pressed = keys.then(KeyAction::Down { value }).then(KeyAction::Up { value });
        self.page.perform_actions(pressed).await.context("press a key")
    }

    /// Types where the focus is.
    ///
    /// # Errors
    /// If nothing there can be typed into.
    pub async fn type_here(&self, text: &str) -> Result<()> {
        self.page.active_element().await?.send_keys(text).await.context("type")
    }

    /// Waits until the page shows this text.
    ///
    /// # Errors
    /// With what the page shows instead.
    pub async fn shows(&self, text: &str) -> Result<()> {
        self.shows_within(text, PATIENCE).await
    }

    /// Waits so long until the page shows this text.
    ///
    /// # Errors
    /// As [`Window::shows`].
    pub async fn shows_within(&self, text: &str, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        while !self.text().await?.contains(text) {
            if Instant::now() > end {
                bail!(self.instead_of(&format!("'{text}'")).await);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// All text of the page.
    ///
    /// # Errors
    /// If the page cannot be asked.
    pub async fn text(&self) -> Result<String> {
        let text = self.page.execute("return document.body.innerText", Vec::new()).await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Text of what a selector of CSS finds first.
    ///
    /// # Errors
    /// If it finds nothing.
    pub async fn read(&self, selector: &str) -> Result<String> {
        self.find(selector, Locator::Css(selector)).await?.text().await.context("read")
    }

    /// Types into the field with this name.
    ///
    /// # Errors
    /// If there is no such field.
    pub async fn type_into(&self, name: &str, text: &str) -> Result<()> {
        for _ in 0..TRIES {
            let field = self.field(name).await?;
            let typed = match field.clear().await {
                Ok(()) => field.send_keys(text).await,
                refused => refused,
            };
            match typed {
                Err(error) if is_passing(&error) => tokio::time::sleep(LOOK).await,
                done => return done.with_context(|| format!("type into '{name}'")),
            }
        }
        bail!("the field '{name}' cannot be typed into again and again")
    }

    /// Puts a text into the field with this name at once, as from the clipboard: what is long takes minutes by key.
    ///
    /// # Errors
    /// If there is no such field.
    pub async fn paste(&self, name: &str, text: &str) -> Result<()> {
        let script = "const [field, text] = arguments; \
                      const { set } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value'); \
                      set.call(field, text); \
                      field.dispatchEvent(new Event('input', { bubbles: true }))";
        let field = serde_json::to_value(self.field(name).await?)?;
        self.page.execute(script, vec![field, json!(text)]).await.context("paste")?;
        Ok(())
    }

    async fn field(&self, name: &str) -> Result<Element> {
        self.find(&format!("the field '{name}'"), Locator::Css(&format!("[name='{name}']"))).await
    }

    /// Presses the button with this text, once it can be pressed.
    ///
    /// # Errors
    /// If there is no such button.
    pub async fn press(&self, text: &str) -> Result<()> {
        self.click_on(&format!("//button[normalize-space()='{text}'][not(@disabled)]")).await
    }

    /// Presses the button with this text in the question before the page.
    ///
    /// # Errors
    /// If there is no such button.
    pub async fn press_in_dialog(&self, text: &str) -> Result<()> {
        let button = format!("//button[normalize-space()='{text}'][not(@disabled)]");
        self.click_on(&format!("//*[@role='dialog']{button}")).await
    }

    /// Presses the button with this text that is about one of several.
    ///
    /// # Errors
    /// If there is no such button.
    pub async fn press_about(&self, text: &str, about: &str) -> Result<()> {
        self.click_on(&format!("//button[@aria-label='{text}: {about}'][not(@disabled)]")).await
    }

    /// Turns to the part of the page with this name.
    ///
    /// # Errors
    /// If there is none.
    pub async fn turn_to(&self, text: &str) -> Result<()> {
        self.click_on(&format!("//*[@role='tab'][normalize-space()='{text}']")).await
    }

    /// Follows the link whose text begins so.
    ///
    /// # Errors
    /// If there is no such link.
    pub async fn follow(&self, text: &str) -> Result<()> {
        self.click_on(&format!("//a[starts-with(normalize-space(), '{text}')]")).await
    }

    /// Chooses the answer that begins so.
    ///
    /// # Errors
    /// If there is none.
    pub async fn choose(&self, answer: &str) -> Result<()> {
        self.click_on(&format!("//label[starts-with(normalize-space(), '{answer}')]")).await
    }

    /// Chooses the same answer to every question on the page.
    ///
    /// # Errors
    /// If there is none.
    pub async fn answer_all(&self, answer: &str) -> Result<()> {
        let path = format!("//label[normalize-space()='{answer}']");
        self.find("a question", Locator::XPath(&path)).await?;
        let questions = self.page.find_all(Locator::XPath(&path)).await?.len();
        for number in 1..=questions {
            self.click_on(&format!("({path})[{number}]")).await?;
        }
        Ok(())
    }

    /// Picks what begins so from the list with this label.
    ///
    /// # Errors
    /// If there is no such list, or nothing in it that begins so.
    pub async fn pick(&self, label: &str, option: &str) -> Result<()> {
        self.click_on(&format!("//*[normalize-space()='{label}']/following-sibling::button")).await?;
        self.click_on(&format!("//*[@role='option'][starts-with(normalize-space(), '{option}')]")).await
    }

    /// Lets the page try what it may not do; `port`: where somebody listens on this machine. What came of each, by name.
    ///
    /// # Errors
    /// If the page cannot be asked.
    pub async fn attempts(&self, port: u16) -> Result<BTreeMap<String, String>> {
        let answers = self.page.execute_async(include_str!("attempts.js"), vec![json!(port)]).await?;
        serde_json::from_value(answers).context("the attempts' answers")
    }

    /// A picture of the page, PNG.
    ///
    /// # Errors
    /// If none can be taken: with the programs xwd and pnmtopng.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let [width, height, outer_width, outer_height] = self.sizes().await?;
        // What the page has changed is drawn a little later.
        tokio::time::sleep(SETTLE).await;
        // There is no window manager: what a window has besides its page is above it.
        let part = [outer_width - width, outer_height - height, width, height].map(|side| side.to_string());
        let part = part.each_ref().map(String::as_str);
        let printed = match &self.screen {
            Screen::Seat(seat) => seat.run(PICTURE, &part)?,
            Screen::Own(own) => own.run(PICTURE, &part)?,
        };
        let picture = BASE64.decode(printed.trim().as_bytes()).context("a picture in base 64")?;
        ensure!(!picture.is_empty(), "there is no picture of the screen: xwd (x11-apps) and netpbm take it");
        Ok(picture)
    }

    /// Closes the window.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub async fn close(self) -> Result<()> {
        self.page.clone().close().await.context("close the window")
    }

    /// Keeps a picture of the window under this name, in the folder that `HOSPES_PICTURES` names, if it names one.
    ///
    /// # Errors
    /// As [`Window::picture`], or if it cannot be written.
    pub async fn keep(&self, name: &str) -> Result<()> {
        let Some(folder) = std::env::var_os("HOSPES_PICTURES") else { return Ok(()) };
        let picture = self.picture().await?;
        std::fs::create_dir_all(&folder)?;
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).context("keep a picture")
    }

    async fn click_on(&self, path: &str) -> Result<()> {
        for _ in 0..TRIES {
            let element = self.find(path, Locator::XPath(path)).await?;
            match self.click(&element).await {
                Err(error) if is_passing(&error) => tokio::time::sleep(LOOK).await,
                done => return done.with_context(|| format!("press {path}")),
            }
        }
        bail!("{path} cannot be pressed again and again")
    }

    /// Clicks in the middle of the window, once what is clicked stays where it is: where the page still moves, a press can begin
    /// on a button and end beside it.
    async fn click(&self, element: &Element) -> Result<(), CmdError> {
        let argument = serde_json::to_value(element).map_err(CmdError::Json)?;
        let mut before = Value::Null;
        for _ in 0..STILL {
            let place = self.page.execute(PLACE, vec![argument.clone()]).await?;
            if place == before {
                break;
            }
            before = place;
            tokio::time::sleep(LOOK).await;
        }
        element.click().await
    }

    async fn find(&self, what: &str, place: Locator<'_>) -> Result<Element> {
        match self.page.wait().at_most(PATIENCE).every(LOOK).for_element(place).await {
            Ok(element) => Ok(element),
            Err(error) => Err(error).context(self.instead_of(what).await),
        }
    }

    /// What the page shows in place of what is looked for, also as a picture.
    async fn instead_of(&self, what: &str) -> String {
        // It says more, and its absence says nothing.
        let _ = self.keep("instead").await;
        format!("the page does not show {what} but:\n{}", self.text().await.unwrap_or_default())
    }
}

/// Whether something was drawn anew, or something else that goes away lay over it.
fn is_passing(error: &CmdError) -> bool {
    let CmdError::Standard(said) = error else { return false };
    matches!(said.error, ErrorStatus::StaleElementReference | ErrorStatus::ElementClickIntercepted)
}

pub(crate) async fn connect(port: u16, shell: &Path, arguments: &[&str]) -> Result<Client> {
    let capabilities = json!({ "webkitgtk:browserOptions": { "binary": shell, "args": arguments } });
    let Value::Object(capabilities) = capabilities else { bail!("no capabilities") };
    let url = format!("http://127.0.0.1:{port}");
    let end = Instant::now() + PATIENCE;
    loop {
        let mut builder = ClientBuilder::new(HttpConnector::new());
        match builder.capabilities(capabilities.clone()).connect(&url).await {
            Ok(client) => {
                let timeouts = TimeoutConfiguration::new(Some(ASKED), None, None);
                client.update_timeouts(timeouts).await.context("tell the driver how long the page may take")?;
                return Ok(client);
            }
            // The driver may not listen yet, or the app that was ended may still have its name on the bus.
            Err(error) if Instant::now() > end => return Err(error).context("open the window"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
