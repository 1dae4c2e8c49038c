//! A kubeconfig with one context only that works by itself: certificates and
//! keys are inside; programs that log in, and token files, which are renewed
//! where they are, stay what they were.

use base64::Engine as _;
use devloop_core::error::{CommandError, ErrorContext, Result};
use kube::config::Kubeconfig;
use std::io;

/// Cuts the kubeconfig down to a context and what it names.
pub(super) fn minify(mut config: Kubeconfig, name: &str, read: &dyn Fn(&str) -> io::Result<Vec<u8>>) -> Result<Kubeconfig> {
    config.contexts.retain(|context| context.name == name);
    let context = config.contexts.first().and_then(|named| named.context.clone());
    let context = context.ok_or_else(|| CommandError::new(format!("context {name:?} names no cluster")))?;
    config.clusters.retain(|cluster| cluster.name == context.cluster);
    config.auth_infos.retain(|user| Some(&user.name) == context.user.as_ref());
    if config.clusters.is_empty() {
        return Err(CommandError::new(format!("cluster {:?} of context {name:?} is not in the kubeconfig", context.cluster)));
    }
    config.current_context = Some(name.to_owned());
    let embed = |file: &mut Option<String>, data: &mut Option<String>| -> Result<()> {
        let Some(path) = file.take() else { return Ok(()) };
        if data.is_none() {
            let content = read(&path).with_context(|| format!("could not read {path}"))?;
            *data = Some(base64::engine::general_purpose::STANDARD.encode(content));
        }
        Ok(())
    };
    for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        embed(&mut cluster.certificate_authority, &mut cluster.certificate_authority_data)?;
    }
    for user in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        embed(&mut user.client_certificate, &mut user.client_certificate_data)?;
        let mut key = None;
        if user.client_key_data.is_none() {
            embed(&mut user.client_key, &mut key)?;
            user.client_key_data = key.map(Into::into);
        }
        user.client_key = None;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r"
apiVersion: v1
kind: Config
current-context: other
clusters:
- {name: far, cluster: {server: 'https://far:6443', certificate-authority: /pki/ca.crt}}
- {name: near, cluster: {server: 'https://near:6443'}}
contexts:
- {name: prod, context: {cluster: far, user: me, namespace: shop}}
- {name: cloud, context: {cluster: near, user: login}}
- {name: broken, context: {cluster: gone, user: me}}
- {name: other, context: {cluster: near, user: me}}
users:
- {name: me, user: {client-certificate: /pki/me.crt, client-key: /pki/me.key, tokenFile: /run/token}}
- {name: login, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: login, args: [token], interactiveMode: Never}}}
";

    fn cut(name: &str) -> Result<String> {
        let config = serde_yaml_ng::from_str(CONFIG).unwrap();
        let minified = minify(config, name, &|path| Ok(path.as_bytes().to_vec()))?;
        Ok(serde_yaml_ng::to_string(&minified).unwrap())
    }

    #[test]
    fn files_become_data_and_the_rest_stays() {
        insta::assert_snapshot!(cut("prod").unwrap());
        insta::assert_snapshot!(cut("cloud").unwrap());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(cut("broken").unwrap_err().to_string(), "cluster \"gone\" of context \"broken\" is not in the kubeconfig");
        let config = serde_yaml_ng::from_str(CONFIG).unwrap();
        let error = minify(config, "prod", &|_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert_eq!(error.to_string(), "could not read /pki/ca.crt");
    }
}
