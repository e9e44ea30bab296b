// A certified OpenID Provider (npm oidc-provider) on a free port of loopback, for the tests. It says its issuer on standard output and ends
// with its standard input. MODULES is the folder that `.ci/setup tests` installed it into.
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import http from 'node:http'

const require = createRequire(process.env.MODULES + '/x.js')
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href)

const settings = {
  clients: [
    { client_id: 'service', client_secret: 'service-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] },
    { client_id: 'gateway', client_secret: 'gateway secret+%', grant_types: [], redirect_uris: [], response_types: [] },
  ],
  scopes: ['openid', 'orders', 'stock'],
  cookies: { keys: ['tests'] },
  ttl: { ClientCredentials: 600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
    // With `resource` the access token is a JWT for it, without it is opaque.
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'orders stock', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
}

const server = http.createServer()
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  server.on('request', new Provider(issuer, settings).callback())
  console.log(issuer)
})
process.stdin.on('end', () => process.exit()).resume()
