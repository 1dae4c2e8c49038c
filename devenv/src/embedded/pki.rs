//! The certificates of an environment, made once when it is created.
//!
//! Three authorities, as kubeadm lays them out
//! (<https://kubernetes.io/docs/setup/best-practices/certificates/>): the
//! cluster's, etcd's, and the front proxy's.

use super::addresses::Addresses;
use devloop_core::error::{ErrorContext, Result};
use devloop_core::files;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Written last: a folder without it is the half of an interrupted run.
const COMPLETE: &str = "complete";

/// Makes all keys and certificates in `folder` unless they are there.
///
/// # Errors
/// When a file can't be written.
pub(crate) fn ensure(folder: &Path, addresses: Addresses, node_name: &str) -> Result<()> {
    if folder.join(COMPLETE).exists() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let writer = Writer { folder };
    generate(&writer, addresses, node_name).with_context(|| format!("could not make certificates in {}", folder.display()))?;
    writer.put(COMPLETE, "", 0o600)
}

fn generate(writer: &Writer<'_>, addresses: Addresses, node_name: &str) -> Result<()> {
    let cluster = authority("devloop-cluster")?;
    let etcd = authority("devloop-etcd")?;
    let front_proxy = authority("devloop-front-proxy")?;
    for (name, issuer) in [("ca", &cluster), ("etcd-ca", &etcd), ("front-proxy-ca", &front_proxy)] {
        writer.put(&format!("{name}.crt"), &issuer.pem(), 0o644)?;
    }
    let node = IpAddr::V4(addresses.node());
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let api_names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", node_name];
    let api = Leaf::server("kube-apiserver", &api_names, &[loopback, node, IpAddr::V4(addresses.kubernetes_service())]);
    let leaves = [
        ("apiserver", &cluster, api),
        ("kubelet-server", &cluster, Leaf::server(node_name, &[node_name], &[node, loopback])),
        ("etcd", &etcd, Leaf::server("etcd", &["localhost"], &[loopback])),
        ("apiserver-etcd-client", &etcd, Leaf::client("kube-apiserver", None)),
        // Allowed from the first request on: the kubelet remembers a denial for
        // half a minute, and RBAC is not there yet when it is asked first.
        ("apiserver-kubelet-client", &cluster, Leaf::client("kube-apiserver-kubelet-client", Some("system:masters"))),
        ("front-proxy-client", &front_proxy, Leaf::client("front-proxy-client", None)),
        ("admin", &cluster, Leaf::client("devloop-admin", Some("system:masters"))),
        ("controller-manager", &cluster, Leaf::client("system:kube-controller-manager", None)),
        ("scheduler", &cluster, Leaf::client("system:kube-scheduler", None)),
        ("kube-proxy", &cluster, Leaf::client("system:kube-proxy", None)),
        ("kubelet", &cluster, Leaf::client(&format!("system:node:{node_name}"), Some("system:nodes"))),
        ("coredns", &cluster, Leaf::client(super::bootstrap::COREDNS_USER, None)),
    ];
    for (name, issuer, leaf) in &leaves {
        let key = KeyPair::generate().context("could not make a key")?;
        let certificate = leaf.params()?.signed_by(&key, issuer).with_context(|| format!("could not sign the certificate of {name}"))?;
        writer.put(&format!("{name}.crt"), &certificate.pem(), 0o644)?;
        writer.put(&format!("{name}.key"), &key.serialize_pem(), 0o600)?;
    }
    let service_accounts = KeyPair::generate().context("could not make a key")?;
    writer.put("sa.key", &service_accounts.serialize_pem(), 0o600)?;
    writer.put("sa.pub", &service_accounts.public_key_pem(), 0o644)
}

struct Writer<'a> {
    folder: &'a Path,
}

impl Writer<'_> {
    fn put(&self, name: &str, content: &str, mode: u32) -> Result<()> {
        let path = self.folder.join(name);
        files::write_atomic(&path, content.as_bytes(), mode).with_context(|| format!("could not write {}", path.display()))
    }
}

struct Leaf {
    common_name: String,
    organization: Option<&'static str>,
    names: Vec<SanType>,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf {
    fn client(common_name: &str, organization: Option<&'static str>) -> Self {
        Self { common_name: common_name.to_owned(), organization, names: Vec::new(), usages: vec![ExtendedKeyUsagePurpose::ClientAuth] }
    }

    fn server(common_name: &str, names: &[&str], addresses: &[IpAddr]) -> Self {
        let names = names.iter().filter_map(|name| Some(SanType::DnsName((*name).try_into().ok()?)));
        let names = names.chain(addresses.iter().map(|address| SanType::IpAddress(*address))).collect();
        // etcd's gateway dials its own server with the server's certificate.
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { common_name: common_name.to_owned(), organization: None, names, usages }
    }

    fn params(&self) -> Result<CertificateParams> {
        let mut params = validity(CertificateParams::new(Vec::<String>::new()).context("could not describe a certificate")?);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, &self.common_name);
        if let Some(organization) = self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.subject_alt_names.clone_from(&self.names);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages.clone_from(&self.usages);
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = validity(CertificateParams::new(Vec::<String>::new()).context("could not describe a certificate")?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().context("could not make a key")?;
    CertifiedIssuer::self_signed(params, key).with_context(|| format!("could not sign the certificate of {name}"))
}

/// Ten years from a day ago: an environment is not renewed, it is made anew,
/// and a clock that was set back a little must not lock it out.
fn validity(mut params: CertificateParams) -> CertificateParams {
    let now = jiff::Zoned::now().date();
    let start = now.saturating_sub(jiff::Span::new().days(1));
    let date = |date: jiff::civil::Date, years: i16| {
        rcgen::date_time_ymd(i32::from(date.year() + years), date.month().unsigned_abs(), date.day().unsigned_abs().min(28))
    };
    params.not_before = date(start, 0);
    params.not_after = date(start, 10);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_private_and_a_second_run_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        ensure(folder.path(), Addresses::new(3), "devloop-test").unwrap();
        let mut keys = 0;
        for entry in std::fs::read_dir(folder.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "key") {
                keys += 1;
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
            }
        }
        assert_eq!(keys, 13);
        let before = std::fs::read(folder.path().join("admin.crt")).unwrap();
        ensure(folder.path(), Addresses::new(3), "devloop-test").unwrap();
        assert_eq!(std::fs::read(folder.path().join("admin.crt")).unwrap(), before);
        // The mark is missing after an interrupted run: everything is made anew.
        std::fs::remove_file(folder.path().join(COMPLETE)).unwrap();
        ensure(folder.path(), Addresses::new(3), "devloop-test").unwrap();
        assert_ne!(std::fs::read(folder.path().join("admin.crt")).unwrap(), before);
    }
}
