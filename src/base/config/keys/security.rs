//! TLS, SASL, authorizers and delegation tokens, which Sordini does not support yet.

use super::{Key, keys};

keys! {
    SECURITY:

    "authorizer.class.name" String "" any Low ReadOnly
        (protects "there is no authorizer, so every client may do everything")
        "The authorizer's Java class; empty lets everyone do everything.";
    "connections.max.reauth.ms" Long "0" any Medium ReadOnly
        (protects_above 0 "there is no SASL, so clients are not authenticated")
        "A SASL session older than this must log in again; 0 never.";
    "sasl.server.max.receive.size" Int "524288" any Medium ReadOnly Ignored
        "The largest SASL message before login, in bytes.";
    "security.providers" String null any Low ReadOnly Ignored
        "Java classes that provide security algorithms.";
    "principal.builder.class" Class
        "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder" any Medium
        PerBroker
        (protects "clients are not authenticated, so all have the principal User:ANONYMOUS")
        "The Java class that makes principals of connections.";
    "ssl.client.auth" String "none" (one_of "required" "requested" "none") Medium PerBroker
        (protects "there is no TLS, so clients need no certificate")
        "Whether clients must, may or need not show a certificate.";
    "ssl.principal.mapping.rules" String "DEFAULT" any Low ReadOnly
        (protects "clients are not authenticated, so all have the principal User:ANONYMOUS")
        "Rules that turn a certificate's name into a principal.";
    "ssl.allow.dn.changes" Boolean "false" any Low ReadOnly Ignored
        "Whether a new certificate may have another distinguished name.";
    "ssl.allow.san.changes" Boolean "false" any Low ReadOnly Ignored
        "Whether a new certificate may have other alternative names.";
    "ssl.protocol" String "TLSv1.3" any Medium PerBroker Ignored
        "The TLS version that a context is made for.";
    "ssl.provider" String null any Medium PerBroker Ignored
        "The Java security provider for TLS.";
    "ssl.enabled.protocols" List "TLSv1.2,TLSv1.3" list Medium PerBroker Ignored
        "The TLS versions that are spoken.";
    "ssl.keystore.type" String "JKS" any Medium PerBroker Ignored
        "The format of the key store.";
    "ssl.keystore.location" String null any Medium PerBroker Ignored
        "The file of the key store.";
    "ssl.keystore.password" Password null any Medium PerBroker Ignored
        "The password of the key store.";
    "ssl.key.password" Password null any Medium PerBroker Ignored
        "The password of the private key.";
    "ssl.keystore.key" Password null any Medium PerBroker Ignored
        "The private key itself, as PEM.";
    "ssl.keystore.certificate.chain" Password null any Medium PerBroker Ignored
        "The certificate chain itself, as PEM.";
    "ssl.truststore.type" String "JKS" any Medium PerBroker Ignored
        "The format of the trust store.";
    "ssl.truststore.location" String null any Medium PerBroker Ignored
        "The file of the trust store.";
    "ssl.truststore.password" Password null any Medium PerBroker Ignored
        "The password of the trust store.";
    "ssl.truststore.certificates" Password null any Medium PerBroker Ignored
        "The trusted certificates themselves, as PEM.";
    "ssl.keymanager.algorithm" String "SunX509" any Medium PerBroker Ignored
        "The Java algorithm of the key manager.";
    "ssl.trustmanager.algorithm" String "PKIX" any Medium PerBroker Ignored
        "The Java algorithm of the trust manager.";
    "ssl.endpoint.identification.algorithm" String "https" any Low PerBroker Ignored
        "How a server's name is checked; empty does not check.";
    "ssl.secure.random.implementation" String null any Low PerBroker Ignored
        "The Java source of random numbers.";
    "ssl.cipher.suites" List "" list Medium PerBroker Ignored
        "The cipher suites that may be used; empty takes the defaults.";
    "ssl.engine.factory.class" Class null any Low PerBroker Ignored
        "The Java class that makes TLS engines.";
    "sasl.mechanism.inter.broker.protocol" String "GSSAPI" any Medium PerBroker
        (protects "there is no SASL, so brokers do not authenticate")
        "The SASL mechanism among brokers.";
    "sasl.enabled.mechanisms" List "GSSAPI" list Medium PerBroker
        (protects "there is no SASL, so clients are not authenticated")
        "The SASL mechanisms that clients may use.";
    "sasl.server.callback.handler.class" Class null any Medium ReadOnly
        (protects "there is no SASL, so clients are not authenticated")
        "The Java class that answers SASL on the server's side.";
    "sasl.kerberos.principal.to.local.rules" List "DEFAULT" list Medium PerBroker
        (protects "there is no SASL, so clients are not authenticated")
        "Rules that turn a Kerberos name into a short one.";
    "sasl.jaas.config" Password null any Medium PerBroker
        (protects "there is no SASL, so clients are not authenticated")
        "Login settings of a SASL mechanism, in JAAS format.";
    "sasl.client.callback.handler.class" Class null any Medium ReadOnly Ignored
        "The Java class that answers SASL on the client's side.";
    "sasl.login.class" Class null any Medium ReadOnly Ignored
        "The Java class that logs in.";
    "sasl.login.callback.handler.class" Class null any Medium ReadOnly Ignored
        "The Java class that supplies a login's secrets.";
    "sasl.kerberos.service.name" String null any Medium PerBroker Ignored
        "The Kerberos name that the brokers run under.";
    "sasl.kerberos.kinit.cmd" String "/usr/bin/kinit" any Medium PerBroker Ignored
        "Where kinit is.";
    "sasl.kerberos.ticket.renew.window.factor" Double "0.8" any Medium PerBroker Ignored
        "The part of a ticket's life after which it is renewed.";
    "sasl.kerberos.ticket.renew.jitter" Double "0.05" any Medium PerBroker Ignored
        "The random part of that time.";
    "sasl.kerberos.min.time.before.relogin" Long "60000" any Medium PerBroker Ignored
        "The least time between two renewals.";
    "sasl.login.refresh.window.factor" Double "0.8" any Medium PerBroker Ignored
        "The part of a token's life after which it is renewed.";
    "sasl.login.refresh.window.jitter" Double "0.05" any Medium PerBroker Ignored
        "The random part of that time.";
    "sasl.login.refresh.min.period.seconds" Short "60" any Medium PerBroker Ignored
        "The least time between two renewals of a token.";
    "sasl.login.refresh.buffer.seconds" Short "300" any Medium PerBroker Ignored
        "How long before a token's end its renewal is due.";
    "sasl.login.connect.timeout.ms" Int null any Low ReadOnly Ignored
        "How long connecting to a token's issuer may take.";
    "sasl.login.read.timeout.ms" Int null any Low ReadOnly Ignored
        "How long reading from a token's issuer may take.";
    "sasl.login.retry.backoff.max.ms" Long "10000" any Low ReadOnly Ignored
        "The longest rest between two tries at a token's issuer.";
    "sasl.login.retry.backoff.ms" Long "100" any Low ReadOnly Ignored
        "The first rest between two tries at a token's issuer.";
    "sasl.oauthbearer.jwt.retriever.class" Class
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever" any Medium ReadOnly
        Ignored
        "The Java class that fetches tokens.";
    "sasl.oauthbearer.jwt.validator.class" Class
        "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator" any Medium ReadOnly

        (protects "there is no SASL, so clients are not authenticated")
        "The Java class that checks tokens.";
    "sasl.oauthbearer.scope" String null any Medium ReadOnly Ignored
        "What a fetched token is to be good for.";
    "sasl.oauthbearer.client.credentials.client.id" String null any Medium ReadOnly Ignored
        "The id under which tokens are fetched.";
    "sasl.oauthbearer.client.credentials.client.secret" Password null any Medium ReadOnly Ignored
        "The secret of that id.";
    "sasl.oauthbearer.assertion.algorithm" String "RS256"
        (one_of_ignoring_case "ES256" "RS256") Medium ReadOnly Ignored
        "How assertions are signed.";
    "sasl.oauthbearer.assertion.claim.aud" String null any Medium ReadOnly Ignored
        "The audience named in assertions.";
    "sasl.oauthbearer.assertion.claim.exp.seconds" Int "300" (between 0 86400) Low ReadOnly Ignored
        "How long an assertion is good.";
    "sasl.oauthbearer.assertion.claim.iss" String null any Medium ReadOnly Ignored
        "The issuer named in assertions.";
    "sasl.oauthbearer.assertion.claim.jti.include" Boolean "false" any Medium ReadOnly Ignored
        "Whether assertions get an id of their own.";
    "sasl.oauthbearer.assertion.claim.nbf.seconds" Int "60" (between 0 3600) Low ReadOnly Ignored
        "How far in the past an assertion starts to be good.";
    "sasl.oauthbearer.assertion.claim.sub" String null any Medium ReadOnly Ignored
        "The subject named in assertions.";
    "sasl.oauthbearer.assertion.file" String null any Medium ReadOnly Ignored
        "A file that holds a ready assertion.";
    "sasl.oauthbearer.assertion.private.key.file" String null any Medium ReadOnly Ignored
        "The file of the key that signs assertions.";
    "sasl.oauthbearer.assertion.private.key.passphrase" Password null any Medium ReadOnly Ignored
        "The password of that key.";
    "sasl.oauthbearer.assertion.template.file" String null any Medium ReadOnly Ignored
        "A file with more claims for assertions.";
    "sasl.oauthbearer.scope.claim.name" String "scope" any Low ReadOnly Ignored
        "The claim that holds a token's scope.";
    "sasl.oauthbearer.sub.claim.name" String "sub" any Low ReadOnly Ignored
        "The claim that holds a token's subject.";
    "sasl.oauthbearer.token.endpoint.url" String null any Medium ReadOnly Ignored
        "Where tokens are fetched.";
    "sasl.oauthbearer.jwks.endpoint.url" String null any Medium ReadOnly Ignored
        "Where the keys that tokens are signed with are fetched.";
    "sasl.oauthbearer.jwks.endpoint.refresh.ms" Long "3600000" any Low ReadOnly Ignored
        "How often those keys are fetched again.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" Long "100" any Low ReadOnly Ignored
        "The first rest between two tries to fetch them.";
    "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" Long "10000" any Low ReadOnly Ignored
        "The longest rest between two tries to fetch them.";
    "sasl.oauthbearer.clock.skew.seconds" Int "30" any Low ReadOnly Ignored
        "How far apart the clocks of issuer and broker may be.";
    "sasl.oauthbearer.expected.audience" List "" list High ReadOnly
        (protects "there is no SASL, so clients are not authenticated")
        "Audiences of which a token must name one.";
    "sasl.oauthbearer.expected.issuer" String null any High ReadOnly
        (protects "there is no SASL, so clients are not authenticated")
        "The issuer that a token must name.";
    "delegation.token.secret.key" Password null any Medium ReadOnly Ignored
        "The secret that signs delegation tokens, alike on all brokers.";
    "delegation.token.max.lifetime.ms" Long "604800000" (at_least 1) Medium ReadOnly Ignored
        "The age beyond which a delegation token is not renewed.";
    "delegation.token.expiry.time.ms" Long "86400000" (at_least 1) Medium ReadOnly Ignored
        "How long a delegation token is good until its renewal.";
    "delegation.token.expiry.check.interval.ms" Long "3600000" (at_least 1) Low ReadOnly Ignored
        "How often expired delegation tokens are removed.";
}
