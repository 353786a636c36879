//! What lies where in a package, and how the package is described.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use flate2::{Compression, GzBuilder};

use super::{MAINTAINER, Release, THIRD_PARTY, output};

/// A package.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Product {
    /// The window with the service.
    Hospes,
    /// The service alone.
    HospesSite,
}

impl Product {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hospes => "hospes",
            Self::HospesSite => "hospes-site",
        }
    }

    /// The package that takes the place of this one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Hospes => Self::HospesSite,
            Self::HospesSite => Self::Hospes,
        }
    }

    pub(super) fn has_window(self) -> bool {
        self == Self::Hospes
    }

    /// One line, without a full stop.
    pub(super) fn summary(self) -> &'static str {
        match self {
            Self::Hospes => "federated learning for hospitals, window and service",
            Self::HospesSite => "federated learning for hospitals, service without a window",
        }
    }

    /// A few lines, none longer than 78 characters.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Hospes => {
                "Hospitals learn from each other's patients without giving their data away.\n\
                 This package holds the window in which staff of a clinic read requests,\n\
                 sign or refuse them and see what left, the service that holds data, keys\n\
                 and audit log and trains, and the commands hospes-site and hospesctl."
            }
            Self::HospesSite => {
                "Hospitals learn from each other's patients without giving their data away.\n\
                 This package holds the service that holds data, keys and audit log and\n\
                 trains, and the commands hospes-site and hospesctl, for servers. Where\n\
                 people sign in a window, install the package hospes in its place."
            }
        }
    }
}

/// One file of a package.
struct Item {
    bytes: Bytes,
    /// Without the leading slash.
    place: String,
    mode: u32,
}

enum Bytes {
    Of(PathBuf),
    Are(Vec<u8>),
}

/// All files of a package.
pub(super) struct Contents {
    /// Which package.
    pub(super) product: Product,
    items: Vec<Item>,
}

impl Contents {
    /// Gathers them.
    ///
    /// # Errors
    /// If a file is missing or a program does not say its completions.
    pub(super) fn of(product: Product, root: &Path, programs: &Path, release: &Release) -> Result<Self> {
        let mut contents = Self { product, items: Vec::new() };
        contents.service(root, programs)?;
        if product.has_window() {
            contents.window(root, programs, release)?;
        }
        let documents = format!("usr/share/doc/{}", product.name());
        contents.file(&root.join("packaging/linux/copyright"), format!("{documents}/copyright"), 0o644);
        contents.file(&root.join("NOTICE"), format!("{documents}/NOTICE"), 0o644);
        contents.file(&root.join("docs/install.md"), format!("{documents}/install.md"), 0o644);
        contents.file(&root.join("packaging/managed.toml"), format!("{documents}/managed.toml.example"), 0o644);
        contents.packed(&std::fs::read(root.join("CHANGELOG.md"))?, format!("{documents}/CHANGELOG.md"))?;
        // What changed stands in the file above; Debian's tools want the version in a form of their own.
        let date = output(Command::new("date").args(["--utc", "--rfc-email", &format!("--date=@{}", release.epoch)]))?;
        let (name, version) = (product.name(), release.package_version());
        let entry = format!("{name} ({version}) stable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n");
        let entry = format!("{entry} -- {MAINTAINER}  {}\n", date.trim());
        contents.packed(entry.as_bytes(), format!("{documents}/changelog"))?;
        let texts = std::fs::read(root.join(THIRD_PARTY)).with_context(|| format!("read {THIRD_PARTY}"))?;
        contents.packed(&texts, format!("{documents}/{THIRD_PARTY}"))?;
        contents.items.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(contents)
    }

    fn service(&mut self, root: &Path, programs: &Path) -> Result<()> {
        let linux = root.join("packaging/linux");
        for program in ["hospes-site", "hospesctl"] {
            self.file(&programs.join(program), format!("usr/bin/{program}"), 0o755);
            let completions = |shell: &str| {
                output(Command::new(programs.join(program)).args(["completions", shell])).map(String::into_bytes)
            };
            self.bytes(completions("bash")?, format!("usr/share/bash-completion/completions/{program}"));
            self.bytes(completions("zsh")?, format!("usr/share/zsh/vendor-completions/_{program}"));
            self.bytes(completions("fish")?, format!("usr/share/fish/vendor_completions.d/{program}.fish"));
        }
        self.file(&linux.join("hospes-as-service"), "usr/sbin/hospes-as-service".into(), 0o755);
        self.file(&linux.join("hospes-site.service"), "usr/lib/systemd/system/hospes-site.service".into(), 0o644);
        self.file(&linux.join("sysusers.conf"), "usr/lib/sysusers.d/hospes.conf".into(), 0o644);
        self.file(&linux.join("tmpfiles.conf"), "usr/lib/tmpfiles.d/hospes.conf".into(), 0o644);
        self.manual(&linux, "hospes-site", 8)?;
        self.manual(&linux, "hospesctl", 1)?;
        // The same page under the name of the script that it describes, too.
        self.packed(b".so man8/hospes-site.8\n", "usr/share/man/man8/hospes-as-service.8".into())
    }

    fn window(&mut self, root: &Path, programs: &Path, release: &Release) -> Result<()> {
        let linux = root.join("packaging/linux");
        self.file(&programs.join("hospes"), "usr/bin/hospes".into(), 0o755);
        self.file(&linux.join("hospes.desktop"), "usr/share/applications/hospes.desktop".into(), 0o644);
        let about = std::fs::read_to_string(linux.join("hospes.metainfo.xml"))?;
        let date = output(Command::new("date").args(["--utc", "+%F", &format!("--date=@{}", release.epoch)]))?;
        let about = about.replace("@VERSION@", &release.version).replace("@DATE@", date.trim());
        self.bytes(about.into_bytes(), "usr/share/metainfo/org.hospes.hospes.metainfo.xml".into());
        let icons = root.join("icons");
        for (icon, size) in
            [("32x32.png", "32x32"), ("128x128.png", "128x128"), ("128x128@2x.png", "256x256"), ("icon.png", "512x512")]
        {
            self.file(&icons.join(icon), format!("usr/share/icons/hicolor/{size}/apps/hospes.png"), 0o644);
        }
        self.file(&icons.join("mark.svg"), "usr/share/icons/hicolor/scalable/apps/hospes.svg".into(), 0o644);
        self.manual(&linux, "hospes", 1)
    }

    fn manual(&mut self, folder: &Path, name: &str, section: u8) -> Result<()> {
        let path = folder.join(format!("{name}.{section}"));
        let page = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        self.packed(&page, format!("usr/share/man/man{section}/{name}.{section}"))
    }

    fn file(&mut self, source: &Path, place: String, mode: u32) {
        self.items.push(Item { bytes: Bytes::Of(source.to_owned()), place, mode });
    }

    fn bytes(&mut self, bytes: Vec<u8>, place: String) {
        self.items.push(Item { bytes: Bytes::Are(bytes), place, mode: 0o644 });
    }

    /// Compressed as Debian wants documentation, without a time stamp.
    fn packed(&mut self, bytes: &[u8], place: String) -> Result<()> {
        let mut packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
        std::io::Write::write_all(&mut packer, bytes)?;
        self.bytes(packer.finish()?, format!("{place}.gz"));
        Ok(())
    }

    /// Places of all files, without the leading slash.
    pub(super) fn places(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| item.place.as_str())
    }

    /// Places of the programs.
    pub(super) fn programs(&self) -> impl Iterator<Item = &str> {
        self.places().filter(|place| place.starts_with("usr/bin/"))
    }

    /// Writes all files under `folder`. Programs lose what only debuggers read.
    ///
    /// # Errors
    /// If a file is missing, or one cannot be written.
    pub(super) fn lay_out(&self, folder: &Path) -> Result<()> {
        for item in &self.items {
            let path = folder.join(&item.place);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            match &item.bytes {
                Bytes::Of(source) => {
                    ensure!(source.is_file(), "{} is missing; was everything built?", source.display());
                    std::fs::copy(source, &path).map(drop)
                }
                Bytes::Are(bytes) => std::fs::write(&path, bytes),
            }
            .with_context(|| format!("write {}", path.display()))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(item.mode))?;
        }
        // Whoever builds may have a strict umask; what is installed is for everybody to read.
        readable(folder)?;
        for program in self.programs() {
            output(Command::new("strip").arg("--strip-unneeded").arg(folder.join(program)))?;
        }
        Ok(())
    }
}

fn readable(folder: &Path) -> Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            readable(&entry.path())?;
        }
    }
    Ok(())
}
