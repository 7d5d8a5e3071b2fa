//! How much memory the page cache can take: what the machine has available, and what the control
//! groups of this process permit.
//!
//! Floor: sys. Pages that the page cache holds now count as available, because the kernel can drop
//! them. So the answer is whether a whole file fits, not whether the rest of it does.
//!
//! Failure: `None` if the kernel does not tell.

use std::path::Path;

use crate::sys::descriptor::read_text;

/// Names of the files of one kind of control group.
struct GroupFiles {
    limit: &'static str,
    usage: &'static str,
    /// Page cache in the group, in `memory.stat`.
    cache: [&'static str; 2],
}

const VERSION_1: GroupFiles = GroupFiles {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: ["total_inactive_file", "total_active_file"],
};
const VERSION_2: GroupFiles =
    GroupFiles { limit: "memory.max", usage: "memory.current", cache: ["inactive_file", "active_file"] };

/// Bytes that the page cache can take.
pub(crate) fn available_bytes() -> Option<u64> {
    let system = read_text(Path::new("/proc/meminfo")).ok().and_then(|text| field(&text, "MemAvailable:"));
    let system = system.map(|kib| kib.saturating_mul(1024));
    let groups = read_text(Path::new("/proc/self/cgroup")).ok();
    let groups = groups.and_then(|groups| left_by_groups(Path::new("/sys/fs/cgroup"), &groups));
    match (system, groups) {
        (Some(system), Some(groups)) => Some(system.min(groups)),
        (system, groups) => system.or(groups),
    }
}

/// The number after a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten())
}

/// The smallest remainder of all control groups of the process: those that `/proc/self/cgroup`
/// names, and all their parents.
fn left_by_groups(mounted: &Path, groups: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, kind) = match controllers.is_empty() {
            true if mounted.join("unified").is_dir() => (mounted.join("unified"), VERSION_2),
            true => (mounted.to_path_buf(), VERSION_2),
            false if controllers.split(',').any(|name| name == "memory") => (mounted.join("memory"), VERSION_1),
            false => return None,
        };
        // In a container the path may be that of the machine, which is not visible. Its visible
        // parents count.
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|group| group.starts_with(&root));
        above.filter_map(|group| left_by_group(group, &kind)).min()
    };
    groups.lines().filter_map(of_line).min()
}

/// The bytes that one control group may still use below its limit; `None` if it has no limit.
fn left_by_group(group: &Path, kind: &GroupFiles) -> Option<u64> {
    let number = |name| read_text(&group.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(kind.limit)?, number(kind.usage)?);
    let stat = read_text(&group.join("memory.stat")).unwrap_or_default();
    let cache: u64 = kind.cache.iter().filter_map(|name| field(&stat, name)).sum();
    Some(limit.saturating_sub(usage.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let group = root.join(path);
        fs::create_dir_all(&group).unwrap();
        files.iter().for_each(|(name, text)| fs::write(group.join(name), text).unwrap());
    }

    #[test]
    fn the_tightest_memory_group_counts_and_its_page_cache_is_available() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        group(root, "", &[("memory.max", "max\n"), ("memory.current", "7\n")]);
        group(
            root,
            "a",
            &[("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "active_file 100\n")],
        );
        group(root, "a/b", &[("memory.max", "5000\n"), ("memory.current", "10\n")]);
        assert_eq!(left_by_groups(root, "0::/a/b\n"), Some(200));
        assert_eq!(left_by_groups(root, "0::/a\n"), Some(200));
        assert_eq!(left_by_groups(root, "0::/\n"), None);
        // A path that is not there: the groups above it count.
        assert_eq!(left_by_groups(root, "0::/a/gone/far\n"), Some(200));
    }

    #[test]
    fn memory_groups_of_version_1_count_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let stat = "cache 5\ntotal_inactive_file 30\ntotal_active_file 20\n";
        let files = [("memory.limit_in_bytes", "500\n"), ("memory.usage_in_bytes", "450\n"), ("memory.stat", stat)];
        group(root, "memory/x", &files);
        group(root, "unified", &[]);
        assert_eq!(left_by_groups(root, "9:cpu:/\n4:hugetlb,memory:/x/y\n0::/\n"), Some(100));
        assert_eq!(left_by_groups(root, "4:memory\n\nnonsense\n::"), None);
    }

    #[test]
    fn the_available_memory_of_this_machine_is_found() {
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:   77 kB\n", "MemAvailable:"), Some(77));
        assert_eq!(field("MemAvailable: much\n", "MemAvailable:"), None);
    }
}
