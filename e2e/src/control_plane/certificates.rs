//! Makes the keys and certificates of one control plane, in files of its folder.

#![expect(clippy::disallowed_methods, reason = "it writes keys and certificates")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{GUEST_ADDRESS, SERVICE_ADDRESS};

/// Who has a client certificate.
pub const CLIENTS: [&str; 3] = ["admin", "controller-manager", "scheduler"];

/// The names under which the API server is reached.
const SERVER_NAMES: [&str; 7] = [
    "127.0.0.1",
    GUEST_ADDRESS,
    SERVICE_ADDRESS,
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
];

/// The files of one control plane.
#[derive(Debug)]
pub struct Certificates;

impl Certificates {
    /// Makes everything below `folder`, unless it is there already.
    pub fn create(folder: &Path) -> Result<Self> {
        if folder.join("scheduler.crt").exists() {
            return Ok(Self);
        }
        let authority = authority().context("making a certificate authority")?;
        write(folder, "ca.crt", &authority.pem())?;
        write(folder, "ca.key", &authority.key().serialize_pem())?;
        let accounts = KeyPair::generate().context("making the key of service accounts")?;
        write(folder, "service-accounts.key", &accounts.serialize_pem())?;
        write(folder, "service-accounts.pub", &accounts.public_key_pem())?;
        issue(folder, "server", server()?, &authority)?;
        for (name, user, group) in [
            ("admin", "admin", Some("system:masters")),
            ("controller-manager", "system:kube-controller-manager", None),
            ("scheduler", "system:kube-scheduler", None),
        ] {
            issue(folder, name, client(user, group)?, &authority)?;
        }
        Ok(Self)
    }
}

/// The text of one of the files.
pub fn read(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Makes the certificate of one more client, `user` in `group` if there is one, and tells it and its key.
///
/// # Errors
/// Fails when the authority's key is not in `folder`.
pub fn add_client(folder: &Path, name: &str, user: &str, group: Option<&str>) -> Result<(String, String)> {
    let key = KeyPair::from_pem(&read(folder, "ca.key")?).context("understanding the authority's key")?;
    issue(folder, name, client(user, group)?, &Issuer::new(authority_params(), key))?;
    Ok((read(folder, &format!("{name}.crt"))?, read(folder, &format!("{name}.key"))?))
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    Ok(CertifiedIssuer::self_signed(authority_params(), KeyPair::generate()?)?)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "lamina-lab");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn server() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(SERVER_NAMES.map(str::to_owned)).context("naming the API server")?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// Kubernetes reads the user from the common name and the group from the organisation.
fn client(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn issue(folder: &Path, name: &str, params: CertificateParams, authority: &Issuer<'_, KeyPair>) -> Result<()> {
    let key = KeyPair::generate().with_context(|| format!("making the key of {name}"))?;
    let certificate =
        params.signed_by(&key, authority).with_context(|| format!("signing the certificate of {name}"))?;
    write(folder, &format!("{name}.key"), &key.serialize_pem())?;
    write(folder, &format!("{name}.crt"), &certificate.pem())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", path.display()))
}
