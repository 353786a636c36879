//! Words that this process shows itself, outside the page: tray, notifications, titles of dialogs.

use std::sync::{PoisonError, RwLock};

use hospes_ipc::page::{Language, Preferences};

/// In one language.
pub(crate) struct Words {
    pub(crate) open: &'static str,
    pub(crate) quit_here: &'static str,
    pub(crate) quit_service: &'static str,
    pub(crate) state_alarm: &'static str,
    pub(crate) state_deciding: &'static str,
    pub(crate) state_working: &'static str,
    pub(crate) state_idle: &'static str,
    pub(crate) state_away: &'static str,
    pub(crate) request: &'static str,
    pub(crate) expiry: &'static str,
    pub(crate) alarm: &'static str,
    pub(crate) open_data: &'static str,
    pub(crate) open_images: &'static str,
    pub(crate) open_opt_outs: &'static str,
    pub(crate) open_certificates: &'static str,
    pub(crate) open_backup: &'static str,
    pub(crate) save_audit: &'static str,
    pub(crate) save_model: &'static str,
    pub(crate) save_backup: &'static str,
    pub(crate) save_predictions: &'static str,
    pub(crate) save_update: &'static str,
    pub(crate) save_table: &'static str,
    pub(crate) fitting_files: &'static str,
    pub(crate) all_files: &'static str,
}

const EN: Words = Words {
    open: "Open Hospes",
    quit_here: "Quit – training on this machine stops until Hospes is opened again",
    quit_service: "Quit – the service goes on without the window",
    state_alarm: "Something must be looked at",
    state_deciding: "A request waits for a decision",
    state_working: "Training",
    state_idle: "Nothing to do",
    state_away: "The engine does not run",
    request: "A request waits for a decision. Nothing is used before it is signed.",
    expiry: "An approval ends within a week. Look whether it should be renewed.",
    alarm: "Something must be looked at. Open Hospes to see what.",
    open_data: "Choose the table to register",
    open_images: "Choose the folder of images with its table",
    open_opt_outs: "Choose the list of patients who opted out",
    open_certificates: "Choose the certificates of your organisation",
    open_backup: "Choose the backup to restore",
    save_audit: "Save the audit log",
    save_model: "Save the model and its card",
    save_backup: "Save the backup",
    save_predictions: "Save what the model gives for each row (research use only)",
    save_update: "Save the package of the newer version",
    save_table: "Save the table of the regression",
    fitting_files: "Fitting files",
    all_files: "All files",
};

const DE: Words = Words {
    open: "Hospes öffnen",
    quit_here: "Beenden – das Training auf diesem Rechner ruht, bis Hospes wieder geöffnet wird",
    quit_service: "Beenden – der Dienst läuft ohne das Fenster weiter",
    state_alarm: "Jemand muss nachsehen",
    state_deciding: "Eine Anfrage wartet auf eine Entscheidung",
    state_working: "Training läuft",
    state_idle: "Nichts zu tun",
    state_away: "Der Dienst läuft nicht",
    request: "Eine Anfrage wartet auf eine Entscheidung. Vor der Unterschrift wird nichts verwendet.",
    expiry: "Eine Freigabe endet innerhalb einer Woche. Prüfen Sie, ob sie erneuert werden soll.",
    alarm: "Jemand muss nachsehen. Öffnen Sie Hospes, um zu sehen, worum es geht.",
    open_data: "Tabelle zum Registrieren wählen",
    open_images: "Bildordner mit seiner Tabelle wählen",
    open_opt_outs: "Liste der Widersprüche wählen",
    open_certificates: "Zertifikate Ihrer Einrichtung wählen",
    open_backup: "Sicherung zum Wiederherstellen wählen",
    save_audit: "Protokoll speichern",
    save_model: "Modell und Karte speichern",
    save_backup: "Sicherung speichern",
    save_predictions: "Speichern, was das Modell je Zeile ergibt (nur für die Forschung)",
    save_update: "Paket der neueren Version speichern",
    save_table: "Tabelle der Regression speichern",
    fitting_files: "Passende Dateien",
    all_files: "Alle Dateien",
};

const FR: Words = Words {
    open: "Ouvrir Hospes",
    quit_here: "Quitter – l’entraînement sur cette machine s’arrête jusqu’à la réouverture de Hospes",
    quit_service: "Quitter – le service continue sans la fenêtre",
    state_alarm: "Quelque chose est à vérifier",
    state_deciding: "Une demande attend une décision",
    state_working: "Entraînement en cours",
    state_idle: "Rien à faire",
    state_away: "Le moteur ne fonctionne pas",
    request: "Une demande attend une décision. Rien n’est utilisé avant la signature.",
    expiry: "Une autorisation se termine dans la semaine. Voyez s’il faut la renouveler.",
    alarm: "Quelque chose est à vérifier. Ouvrez Hospes pour voir quoi.",
    open_data: "Choisir le tableau à enregistrer",
    open_images: "Choisir le dossier d’images avec son tableau",
    open_opt_outs: "Choisir la liste des patients opposés",
    open_certificates: "Choisir les certificats de votre établissement",
    open_backup: "Choisir la sauvegarde à restaurer",
    save_audit: "Enregistrer le journal d’audit",
    save_model: "Enregistrer le modèle et sa fiche",
    save_backup: "Enregistrer la sauvegarde",
    save_predictions: "Enregistrer ce que le modèle donne pour chaque ligne (recherche seulement)",
    save_update: "Enregistrer le paquet de la nouvelle version",
    save_table: "Enregistrer le tableau de la régression",
    fitting_files: "Fichiers adaptés",
    all_files: "Tous les fichiers",
};

const ZH: Words = Words {
    open: "打开 Hospes",
    quit_here: "退出 – 本机上的训练将停止，直到再次打开 Hospes",
    quit_service: "退出 – 服务在没有窗口的情况下继续运行",
    state_alarm: "有事项需要查看",
    state_deciding: "有申请等待决定",
    state_working: "正在训练",
    state_idle: "无待办事项",
    state_away: "引擎未运行",
    request: "有申请等待决定。签署之前不会使用任何数据。",
    expiry: "有一项批准将在一周内到期。请查看是否需要续期。",
    alarm: "有事项需要查看。请打开 Hospes 了解详情。",
    open_data: "选择要登记的表格",
    open_images: "选择图像文件夹及其表格",
    open_opt_outs: "选择退出患者名单",
    open_certificates: "选择本机构的证书",
    open_backup: "选择要恢复的备份",
    save_audit: "保存审计日志",
    save_model: "保存模型及其说明卡",
    save_backup: "保存备份",
    save_predictions: "保存模型对每一行的输出（仅供研究）",
    save_update: "保存新版本的安装包",
    save_table: "保存回归表",
    fitting_files: "适用的文件",
    all_files: "所有文件",
};

/// In which language this process speaks, and whether it keeps quiet.
pub(crate) struct Speech(RwLock<Preferences>);

impl Speech {
    pub(crate) fn new(preferences: Preferences) -> Self {
        Self(RwLock::new(preferences))
    }

    pub(crate) fn prefer(&self, preferences: Preferences) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = preferences;
    }

    pub(crate) fn words(&self) -> &'static Words {
        match self.preferences().language() {
            Language::En => &EN,
            Language::De => &DE,
            Language::Fr => &FR,
            Language::Zh => &ZH,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.preferences().quiet
    }

    fn preferences(&self) -> Preferences {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}
