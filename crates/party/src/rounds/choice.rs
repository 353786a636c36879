//! On what this site's networks are trained: a setting of the site, over which stands what the engine was started with, and
//! over that what the hospital's IT fixed. It is taken with the next work; work under way stays where it began.

use std::sync::Arc;

use futures::FutureExt as _;
use hospes_ledger::{Action, Change};
use hospes_protocol::approval::Role;
use hospes_protocol::id::Digest;

use super::{DeviceChoice, Devices};
use crate::audit::Because as _;
use crate::engine::Engine;
use crate::error::PartyError;
use crate::handle::Handle;
use crate::people::Session;
use crate::store::{set_setting, setting};
use crate::view::{DecidedBy, DeviceSetting, Notice};

/// Setting that holds what the site's people chose.
const SETTING: &str = "device";

impl Engine {
    /// Who decides what networks are trained on, and what they decided, if it is not this site's people.
    fn device_decided(&self) -> (DecidedBy, Option<DeviceChoice>) {
        match (self.managed.device, self.config.device) {
            (Some(fixed), _) => (DecidedBy::It, Some(fixed)),
            (None, Some(given)) => (DecidedBy::Start, Some(given)),
            (None, None) => (DecidedBy::People, None),
        }
    }

    pub(super) fn device_decided_by(&self) -> DecidedBy {
        self.device_decided().0
    }

    fn train_on(&mut self, chosen: DeviceChoice) {
        let choice = self.device_decided().1.unwrap_or(chosen);
        if choice != self.devices.choice() {
            self.devices = Arc::new(Devices::of(&self.config.executor, choice));
        }
    }

    /// Reads what was chosen, at the start.
    pub(crate) async fn load_device(&mut self) -> Result<(), PartyError> {
        let mut conn = self.reader().await?;
        let chosen = match setting(&mut conn, SETTING).await? {
            // One of another version decides how fast work is done, and is no reason to do none.
            Some(text) => text.parse::<DeviceChoice>().unwrap_or_else(|why| {
                tracing::warn!(
                    why,
                    "what networks are trained on cannot be read, so they are trained on the processor"
                );
                DeviceChoice::Processor
            }),
            None => DeviceChoice::default(),
        };
        drop(conn);
        self.train_on(chosen);
        Ok(())
    }

    pub(crate) async fn set_device(&mut self, session: Session, choice: DeviceChoice) -> Result<(), PartyError> {
        let acting = self.acting(&session, "set what networks are trained on", &[Role::Administrator]).await?;
        self.held_to(&acting, Action::SettingsChanged, self.managed.check_device(choice)).await?;
        if let (DecidedBy::Start, Some(given)) = self.device_decided() {
            return Err(PartyError::state(format!(
                "the engine was started with --device {given} or HOSPES_DEVICE={given}, and that counts; start it without to \
                 choose here"
            )));
        }
        let text = choice.to_string();
        let digest = |text: &str| Some(Digest::of(text.as_bytes()));
        let mut tx = self.store.begin("set what networks are trained on").await?;
        let before = setting(tx.conn(), SETTING).await?;
        set_setting(tx.conn(), SETTING, Some(&text)).await?;
        let entry = self.entry(acting.actor(), Action::SettingsChanged);
        let mut entry = entry.because(format!("networks are trained on: {}", choice.words()));
        entry.change = Some(Change { before: before.as_deref().and_then(digest), after: digest(&text) });
        self.append(&mut tx, &entry).await?;
        tx.commit().await?;
        self.train_on(choice);
        self.notify(Notice::Settings);
        Ok(())
    }
}

impl Handle {
    /// On what networks are trained, and who decided it; needs no session and looks for no card.
    ///
    /// # Errors
    /// [`PartyError::Stopped`].
    pub async fn device_setting(&self) -> Result<DeviceSetting, PartyError> {
        self.ask(|engine| {
            let setting = DeviceSetting { choice: engine.devices.choice(), decided_by: engine.device_decided_by() };
            std::future::ready(Ok(setting)).boxed()
        })
        .await
    }

    /// Sets what networks are trained on, from the next work on (administrator).
    ///
    /// # Errors
    /// [`PartyError::Denied`], [`PartyError::Managed`] where the hospital's IT fixed another, [`PartyError::State`] where the
    /// engine was started with one.
    pub async fn set_device(&self, session: &Session, choice: DeviceChoice) -> Result<(), PartyError> {
        let s = session.clone();
        self.ask(move |engine| engine.set_device(s, choice).boxed()).await
    }
}
