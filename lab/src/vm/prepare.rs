//! What a virtual machine takes, got once and kept: Debian's kernel, virtme-ng, QEMU.
//!
//! Each part is made in a directory of its own and gets a mark when it is whole, so that an
//! interrupted preparation is begun again and a finished one costs nothing.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::netns::checked;

/// A version whose options and guest scripts the runner was tested with.
const VIRTME_NG: &str = "virtme-ng==1.42";

/// Debian's package that depends on the current kernel.
const KERNEL_PACKAGE: &str = "linux-image-amd64";

/// What vng and the guest's start use, and where Debian's packages put it. Without udev the
/// guest has no way to print, without file vng does not know the kernel's version.
const PROGRAMS: [(&str, &[&str]); 4] = [
    (
        "udev",
        &[
            "/usr/lib/systemd/systemd-udevd",
            "/lib/systemd/systemd-udevd",
        ],
    ),
    ("file", &["/usr/bin/file"]),
    ("kmod", &["/usr/sbin/modprobe", "/sbin/modprobe"]),
    (
        "iproute2",
        &["/usr/bin/ip", "/bin/ip", "/usr/sbin/ip", "/sbin/ip"],
    ),
];

/// Debian's python3. Another one that comes first on the `PATH` may lack what its packages add.
const PYTHON: &str = "/usr/bin/python3";

/// The file that marks a part as whole.
const MARK: &str = "complete";

/// A kernel without a root file system panics, and so ends QEMU, within two seconds of a start
/// under KVM. One that has not by now hangs, as under some nested hypervisors.
const KVM_LIMIT: Duration = Duration::from_secs(15);

/// Neither QEMU nor a way to install it is here: the one reason to skip what needs a machine.
#[derive(Debug)]
pub struct Unavailable(String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no virtual machine can be had: {}", self.0)
    }
}

impl std::error::Error for Unavailable {}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, many times slower.
    Emulation,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "KVM",
            Self::Emulation => "emulated, slow",
        })
    }
}

/// What a machine is started from.
#[derive(Debug)]
pub(super) struct Image {
    /// The kernel's release, such as `6.1.0-56-amd64`.
    pub(super) release: String,
    /// Where the kernel's package was unpacked.
    pub(super) root: PathBuf,
    /// A busybox that needs no library, for the initial file system.
    pub(super) busybox: PathBuf,
    /// The directory of vng and virtme-run.
    pub(super) tools: PathBuf,
}

impl Image {
    pub(super) fn kernel(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }
}

/// Gets everything that is not there yet. One process at a time does, others wait for it.
pub(super) fn image(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<Image> {
    fs::create_dir_all(cache).with_context(|| format!("making {}", cache.display()))?;
    let path = cache.join("lock");
    let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    flock(&lock, FlockOperation::LockExclusive)
        .with_context(|| format!("locking {}", path.display()))?;

    install_qemu(progress)?;
    install_programs(progress)?;
    let release = part(cache, "kernel", |root| unpack_kernel(root, progress))?;
    part(cache, "busybox", |root| {
        unpack("busybox-static", root).map(|()| String::new())
    })?;
    part(cache, "tools", |root| install_tools(root, progress))?;
    Ok(Image {
        release,
        root: cache.join("kernel"),
        busybox: cache.join("busybox/bin/busybox"),
        tools: cache.join("tools/bin"),
    })
}

/// Makes a part unless it is whole already. Returns what `make` had to say about it.
fn part(cache: &Path, name: &str, make: impl FnOnce(&Path) -> Result<String>) -> Result<String> {
    let directory = cache.join(name);
    let mark = directory.join(MARK);
    if let Ok(text) = fs::read_to_string(&mark) {
        return Ok(text);
    }
    if directory.exists() {
        let what = || {
            format!(
                "removing what an interrupted run left in {}",
                directory.display()
            )
        };
        fs::remove_dir_all(&directory).with_context(what)?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let text = make(&directory).with_context(|| format!("preparing {}", directory.display()))?;
    // The mark appears with its text in it, or not at all.
    let partial = directory.join("complete.partial");
    fs::write(&partial, &text).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, &mark).with_context(|| format!("writing {}", mark.display()))?;
    Ok(text)
}

fn unpack_kernel(root: &Path, progress: &mut dyn FnMut(&str)) -> Result<String> {
    progress("downloading Debian's kernel");
    update_package_lists(progress);
    let output = checked(Command::new("apt-cache").args(["depends", KERNEL_PACKAGE]))?;
    let output = String::from_utf8_lossy(&output.stdout);
    let package = kernel_package(&output)
        .with_context(|| format!("{KERNEL_PACKAGE} depends on no kernel:\n{output}"))?;
    unpack(package, root)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    // A merged /usr has the modules below /usr/lib; modprobe and vng look into /lib.
    if !root.join("lib/modules").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).context("linking lib")?;
    }
    checked(Command::new("depmod").arg("-b").arg(root).arg(&release))?;
    Ok(release)
}

/// The package in `apt-cache depends`' answer.
fn kernel_package(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

/// Downloads a package and unpacks it without installing it.
fn unpack(package: &str, root: &Path) -> Result<()> {
    let place = root.join("download");
    fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    checked(
        Command::new("apt-get")
            .args(["download", package])
            .current_dir(&place),
    )?;
    for entry in fs::read_dir(&place).context("looking for the download")? {
        let archive = entry.context("looking for the download")?.path();
        checked(Command::new("dpkg").arg("-x").arg(archive).arg(root))?;
    }
    fs::remove_dir_all(&place).with_context(|| format!("removing {}", place.display()))
}

/// Debian keeps pip from installing outside a virtual environment, and virtme-ng is not in
/// Debian 12.
fn install_tools(root: &Path, progress: &mut dyn FnMut(&str)) -> Result<String> {
    progress(&format!("installing {VIRTME_NG}"));
    checked(Command::new(PYTHON).args(["-m", "venv"]).arg(root))?;
    let pip = root.join("bin/pip");
    checked(Command::new(pip).args(["install", "--quiet", VIRTME_NG]))?;
    Ok(VIRTME_NG.to_owned())
}

fn install_qemu(progress: &mut dyn FnMut(&str)) -> Result<()> {
    if succeeds(Command::new("qemu-system-x86_64").arg("--version")) {
        return Ok(());
    }
    if std::env::consts::ARCH != "x86_64" {
        let arch = std::env::consts::ARCH;
        return Err(Unavailable(format!("only x86_64 is supported, this is {arch}")).into());
    }
    progress("installing QEMU");
    update_package_lists(progress);
    let mut packages = vec!["qemu-system-x86".to_owned()];
    // Newer qemu-utils, from backports, conflict with Debian's QEMU.
    if succeeds(Command::new("dpkg").args(["--status", "qemu-utils"])) {
        match candidate("qemu-system-x86") {
            Ok(version) => packages.push(format!("qemu-utils={version}")),
            Err(error) => return Err(Unavailable(format!("{error:#}")).into()),
        }
    }
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    install(&packages).map_err(|error| Unavailable(format!("{error:#}")).into())
}

fn install_programs(progress: &mut dyn FnMut(&str)) -> Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(_, places)| !places.iter().any(|place| Path::new(place).exists()))
        .map(|(package, _)| *package)
        .collect();
    if !succeeds(Command::new(PYTHON).args(["-c", "import ensurepip, venv"])) {
        missing.extend(["python3", "python3-venv"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    progress(&format!("installing {}", missing.join(", ")));
    update_package_lists(progress);
    install(&missing)
}

/// The version of a package that would be installed.
fn candidate(package: &str) -> Result<String> {
    let output = checked(Command::new("apt-cache").args(["policy", package]))?;
    let output = String::from_utf8_lossy(&output.stdout);
    let version = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version
        .with_context(|| format!("there is no package {package}"))?
        .to_owned())
}

fn update_package_lists(progress: &mut dyn FnMut(&str)) {
    // A third party's broken list need not keep Debian's packages away; what cannot be found
    // after all is named by the step that wants it.
    if let Err(error) = checked(Command::new("apt-get").args(["--quiet", "update"])) {
        progress(&format!("going on with old package lists: {error:#}"));
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let options = [
        "--option",
        "DPkg::Lock::Timeout=300",
        "install",
        "--yes",
        "--quiet",
    ];
    checked(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(options)
            .args(["--no-install-recommends", "--allow-downgrades"])
            .args(packages),
    )
    .map(drop)
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// KVM where a guest really runs under it, as tried once after each start of the host.
pub(super) fn accelerator(
    cache: &Path,
    image: &Image,
    progress: &mut dyn FnMut(&str),
) -> Result<Accelerator> {
    if File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Emulation);
    }
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("boot_id")?;
    let path = cache.join("kvm");
    let (works, fails) = (
        format!("{} works", boot_id.trim()),
        format!("{} fails", boot_id.trim()),
    );
    match fs::read_to_string(&path) {
        Ok(text) if text == works => return Ok(Accelerator::Kvm),
        Ok(text) if text == fails => return Ok(Accelerator::Emulation),
        // No answer, or another boot's.
        Ok(_) | Err(_) => {}
    }
    progress("trying whether a guest runs under KVM");
    let accelerator = try_kvm(&image.kernel())?;
    let answer = match accelerator {
        Accelerator::Kvm => works,
        Accelerator::Emulation => fails,
    };
    fs::write(&path, answer).with_context(|| format!("writing {}", path.display()))?;
    Ok(accelerator)
}

/// Starts the kernel without a root file system and waits for the end that this comes to.
fn try_kvm(kernel: &Path) -> Result<Accelerator> {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "256M",
            "-nodefaults",
            "-no-user-config",
        ])
        .args([
            "-display",
            "none",
            "-no-reboot",
            "-append",
            "panic=-1 quiet",
            "-kernel",
        ])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting qemu-system-x86_64")?;
    let deadline = Instant::now() + KVM_LIMIT;
    loop {
        if let Some(status) = qemu.try_wait().context("waiting for QEMU")? {
            return Ok(if status.success() {
                Accelerator::Kvm
            } else {
                Accelerator::Emulation
            });
        }
        if Instant::now() >= deadline {
            qemu.kill().context("ending QEMU")?;
            qemu.wait().context("waiting for QEMU")?;
            return Ok(Accelerator::Emulation);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// A directory of this test's own.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("isopath-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn the_kernel_is_the_package_that_the_metapackage_depends_on() {
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n";
        assert_eq!(kernel_package(depends), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(kernel_package("linux-image-amd64\n"), None);
    }

    #[test]
    fn an_interrupted_part_is_made_again_and_a_whole_one_is_not() {
        let cache = scratch("part");
        fs::create_dir_all(cache.join("kernel")).unwrap();
        fs::write(cache.join("kernel/half"), "").unwrap();

        let failed = part(&cache, "kernel", |_| bail!("no network"));
        assert!(format!("{:#}", failed.unwrap_err()).contains("no network"));

        let made = part(&cache, "kernel", |directory| {
            assert!(
                !directory.join("half").exists(),
                "an interrupted run's file is still there"
            );
            Ok("6.1".to_owned())
        });
        assert_eq!(made.unwrap(), "6.1");

        let kept = part(&cache, "kernel", |_| bail!("a whole part was made again"));
        assert_eq!(kept.unwrap(), "6.1");
        fs::remove_dir_all(&cache).unwrap();
    }
}
