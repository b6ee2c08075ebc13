//! An initramfs: a cpio archive in the "newc" format (kernel: `Documentation/driver-api/early-userspace/buffer-format.rst`).

use anyhow::{Context as _, Result};

/// File type and permissions of entries, as in `st_mode`.
const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// An archive in the making. The kernel unpacks entries in their order, so directories come before what they hold.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

// === impl Initramfs ===

impl Initramfs {
    /// Adds a directory.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds a file everybody may read and execute.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.entry(path, EXECUTABLE, content)
    }

    /// Closes the archive and returns it.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{path} is too big for a cpio archive"))?;
        let name_size = u32::try_from(path.len() + 1).with_context(|| format!("path {path} is too long"))?;
        let header = [
            self.entries, // ino: hard links would share one
            mode,
            0, // uid
            0, // gid
            1, // nlink
            0, // mtime
            size,
            0, // major and minor of the device it lies on
            0,
            0, // major and minor of the device it is
            0,
            name_size,
            0, // checksum: only in the other format
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// Names and contents end at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Initramfs;

    #[test]
    fn entries_are_aligned_and_carry_their_sizes() {
        let mut archive = Initramfs::default();
        archive.directory("bin").unwrap();
        archive.file("bin/a", b"hello").unwrap();
        let bytes = archive.finish().unwrap();

        // Header of 110 bytes, then "bin\0" and 2 bytes of padding.
        let file = bytes.get(116..).unwrap();
        assert!(file.starts_with(b"070701"));
        assert_eq!(file.get(54..62).unwrap(), b"00000005");
        assert_eq!(file.get(94..102).unwrap(), b"00000006");
        assert_eq!(file.get(110..124).unwrap(), b"bin/a\0hello\0\0\0");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
    }
}
