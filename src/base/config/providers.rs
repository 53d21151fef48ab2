//! Config providers (KIP-297), which replace `${provider:[path:]key}` in values. The providers that
//! come with Apache Kafka are here. All others are Java classes.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
};

use regex_lite::Regex;

use super::{ConfigError, Properties, parse};

/// Access to the files that providers read.
#[derive(Clone, Copy, Debug)]
pub struct FileAccess {
    pub exists: fn(&Path) -> bool,
    pub is_file: fn(&Path) -> bool,
    pub is_dir: fn(&Path) -> bool,
    pub read: fn(&Path) -> io::Result<Vec<u8>>,
}

impl Default for FileAccess {
    /// No file exists.
    fn default() -> Self {
        let read = |_: &Path| Err(io::ErrorKind::NotFound.into());
        Self { exists: |_| false, is_file: |_| false, is_dir: |_| false, read }
    }
}

const PROVIDERS: &str = "config.providers";
const CLASSES: &str = "org.apache.kafka.common.config.provider.";

enum Provider {
    /// Environment variables. With an expression, only those whose whole name matches it.
    EnvVar(Option<Regex>),
    /// The values of a properties file.
    File(AllowedPaths),
    /// The files of a directory.
    Directory(AllowedPaths),
}

/// The data that providers read.
pub(super) struct Outside<'a> {
    pub environment: &'a [(String, String)],
    pub files: FileAccess,
}

/// Properties whose variables are replaced by their values.
pub(super) struct Resolved {
    pub properties: Properties,
    /// Variables as they are written, and their values.
    pub variables: Vec<(String, String)>,
    /// One for each value that still has a variable. As in Kafka, the variable stays as it is
    /// written.
    pub warnings: Vec<String>,
}

pub(super) fn resolve(
    properties: Properties,
    outside: &Outside<'_>,
) -> Result<Resolved, ConfigError> {
    let providers = providers(&properties, outside.files)?;
    let mut resolved = Resolved { properties, variables: Vec::new(), warnings: Vec::new() };
    for (name, value) in &mut resolved.properties {
        let found = resolve_value(value, &providers, outside, &mut resolved.variables)?;
        if !found.unresolved.is_empty() && !name.starts_with(PROVIDERS) {
            resolved.warnings.push(format!(
                "{name}: no config provider resolves {}, so the value is used unchanged",
                found.unresolved.join(", ")
            ));
        }
        *value = found.text;
    }
    Ok(resolved)
}

/// The configured providers by name. As in Kafka, a name without a class is left out.
fn providers(
    properties: &Properties,
    files: FileAccess,
) -> Result<BTreeMap<String, Provider>, ConfigError> {
    let names = properties.get(PROVIDERS).map(String::as_str).unwrap_or_default();
    let mut providers = BTreeMap::new();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let class_key = format!("{PROVIDERS}.{name}.class");
        let Some(class) = properties.get(&class_key) else { continue };
        let param = |param: &str| properties.get(&format!("{PROVIDERS}.{name}.param.{param}"));
        let allowed = || AllowedPaths::parse(param("allowed.paths").map(String::as_str), files);
        let provider = match class.strip_prefix(CLASSES) {
            Some("EnvVarConfigProvider") => {
                Provider::EnvVar(param("allowlist.pattern").map(|it| expression(it)).transpose()?)
            }
            Some("FileConfigProvider") => Provider::File(allowed()?),
            Some("DirectoryConfigProvider") => Provider::Directory(allowed()?),
            _ => {
                let why = "Sordini has no JVM to load it into; it has the EnvVarConfigProvider, \
                           FileConfigProvider and DirectoryConfigProvider of Apache Kafka";
                return Err(parse::invalid(&class_key, class, why));
            }
        };
        providers.insert(name.to_owned(), provider);
    }
    Ok(providers)
}

/// The expression of an allowlist. Possessive quantifiers must not be accepted with another meaning,
/// as crate `regex` does: the list would then allow more than it says. `regex-lite` refuses them.
fn expression(pattern: &str) -> Result<Regex, ConfigError> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        ConfigError::config(format!("allowlist.pattern {pattern} cannot be used: {error}"))
    })
}

/// A value whose variables are replaced, and the variables that no provider resolves.
#[derive(Default)]
struct ResolvedValue {
    text: String,
    unresolved: Vec<String>,
}

fn resolve_value(
    value: &str,
    providers: &BTreeMap<String, Provider>,
    outside: &Outside<'_>,
    variables: &mut Vec<(String, String)>,
) -> Result<ResolvedValue, ConfigError> {
    let mut resolved = ResolvedValue::default();
    let mut rest = value;
    while let Some(found) = Variable::find(rest) {
        let written = &rest[found.start..found.end];
        let looked_up = match providers.get(found.provider) {
            Some(provider) => provider.get(found.path, found.key, outside)?,
            None => None,
        };
        resolved.text.push_str(&rest[..found.start]);
        resolved.text.push_str(looked_up.as_deref().unwrap_or(written));
        match looked_up {
            Some(value) => variables.push((written.to_owned(), value.trim().to_owned())),
            None => resolved.unresolved.push(written.to_owned()),
        }
        rest = &rest[found.end..];
    }
    resolved.text.push_str(rest);
    Ok(resolved)
}

/// A variable `${provider:[path:]key}` and its position (`ConfigTransformer.DEFAULT_PATTERN` of
/// Kafka).
struct Variable<'a> {
    start: usize,
    end: usize,
    provider: &'a str,
    path: &'a str,
    key: &'a str,
}

impl<'a> Variable<'a> {
    fn find(text: &'a str) -> Option<Self> {
        let variable = |(start, _)| {
            let body = &text[start + 2..];
            let body = &body[..body.find('}')?];
            let (provider, rest) = body.split_once(':')?;
            let (path, key) = rest.split_once(':').unwrap_or(("", rest));
            Some(Self { start, end: start + 2 + body.len() + 1, provider, path, key })
        };
        text.match_indices("${").find_map(variable)
    }
}

impl Provider {
    fn get(
        &self,
        path: &str,
        key: &str,
        outside: &Outside<'_>,
    ) -> Result<Option<String>, ConfigError> {
        match self {
            Self::EnvVar(_) if !path.is_empty() => Err(ConfigError::config(format!(
                "Path is not supported for EnvVarConfigProvider, invalid value '{path}'"
            ))),
            Self::EnvVar(allowed) if allowed.as_ref().is_some_and(|it| !it.is_match(key)) => {
                Ok(None)
            }
            Self::EnvVar(_) => {
                let found = outside.environment.iter().find(|(name, _)| name == key);
                Ok(found.map(|(_, value)| value.clone()))
            }
            Self::File(allowed) => match allowed.check(path) {
                Some(file) => property(&file, key, outside.files),
                None => Ok(None),
            },
            Self::Directory(allowed) => match allowed.check(path) {
                Some(dir) => file_in(&dir, key, outside.files),
                None => Ok(None),
            },
        }
    }
}

fn property(file: &Path, key: &str, files: FileAccess) -> Result<Option<String>, ConfigError> {
    let failed = |why: String| {
        let file = file.display();
        ConfigError::config(format!("Could not read properties from file {file}: {why}"))
    };
    let bytes = (files.read)(file).map_err(|error| failed(error.to_string()))?;
    if std::str::from_utf8(&bytes).is_err() {
        return Err(failed("it is not UTF-8".to_owned()));
    }
    let pairs = parse::properties(&bytes).map_err(|error| failed(error.message))?;
    // If a key is there twice, the last value counts.
    Ok(pairs.into_iter().rev().find(|it| it.name == key).map(|it| it.value))
}

fn file_in(dir: &Path, name: &str, files: FileAccess) -> Result<Option<String>, ConfigError> {
    let is_name = Path::new(name).file_name().is_some_and(|it| it == name);
    let path = dir.join(name);
    if !is_name || !(files.is_dir)(dir) || !(files.is_file)(&path) {
        return Ok(None);
    }
    let failed = |why: String| {
        let path = path.display();
        ConfigError::config(format!("Could not read file {path} for property {name}: {why}"))
    };
    let bytes = (files.read)(&path).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    Ok(Some(text))
}

/// The paths that a provider may read. `None` allows all.
struct AllowedPaths(Option<Vec<PathBuf>>);

impl AllowedPaths {
    fn parse(list: Option<&str>, files: FileAccess) -> Result<Self, ConfigError> {
        let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(Self(None)) };
        let mut allowed = Vec::new();
        // As in Java, empty elements at the end do not count. A list that has only commas allows no
        // path.
        let list = list.trim_end_matches(',');
        let paths = list.split(',').filter(|_| !list.is_empty());
        for path in paths.map(|entry| normalized(Path::new(entry))) {
            let refuse = |why| ConfigError::config(format!("Path {} {why}", path.display()));
            if !path.is_absolute() {
                return Err(refuse("is not absolute"));
            }
            if !(files.exists)(&path) {
                return Err(refuse("does not exist"));
            }
            allowed.push(path);
        }
        Ok(Self(Some(allowed)))
    }

    /// The path to read. `None` if it is not allowed or empty.
    fn check(&self, path: &str) -> Option<PathBuf> {
        if path.is_empty() {
            return None;
        }
        let Some(allowed) = &self.0 else { return Some(path.into()) };
        let path = normalized(Path::new(path));
        allowed.iter().any(|prefix| path.starts_with(prefix)).then_some(path)
    }
}

/// Removes `.` and `..` from a path, without reading the disk.
fn normalized(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if normal.file_name().is_some_and(|name| name != "..") => {
                normal.pop();
            }
            // There is nothing above the root.
            Component::ParentDir if normal.has_root() => {}
            other => normal.push(other),
        }
    }
    normal
}
