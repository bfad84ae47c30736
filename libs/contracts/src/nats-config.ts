/**
 * The nats-server configuration of accounts, users and their permissions (docs/security.md, "NATS accounts"): text,
 * without a secret in it. Passwords and nkeys are variables, from the server's environment or a file of its own.
 */
import {
  APP_PERMISSIONS,
  audienceCrossing,
  audiencePermissions,
  NATS_APPS,
  type NatsPermissions,
  type NatsService,
  servicePermissions,
} from './nats-permissions.js';
import { checkName, encodeToken } from './subject.js';

/** How users prove who they are. */
export type NatsLoginKind = 'password' | 'nkey';

export interface NatsConfigOptions {
  /** Audiences whose publishers connect to NATS, each in an account of its own. */
  readonly audiences?: readonly string[];
  /** Internal services with the server SDK, in the platform's account. */
  readonly services?: readonly NatsService[];
  /** Default `password`. */
  readonly login?: NatsLoginKind;
  /**
   * A file beside the configuration that holds the variables, all of them and nothing else, as `NAME: "value"`. A
   * server reads it again when it is told to reload; its environment it cannot.
   */
  readonly secrets?: string;
  /** Whether there is a user `operator`, who may do everything in the platform's account: for the `nats` tool. */
  readonly operator?: boolean;
}

/** A user of the configuration. */
export interface NatsLogin {
  /** `auth`, `service-billing`, `audience-acme`: what the client gives as `NATS_USER`, where it has a password. */
  readonly user: string;
  /** The server's variable: with the password, plain or as bcrypt in double quotes, or the user's public nkey. */
  readonly variable: string;
}

export interface NatsConfig {
  readonly text: string;
  readonly logins: readonly NatsLogin[];
}

/** The platform's account: the only one with JetStream. */
const CORE = 'POSTHORN';

interface User extends NatsLogin {
  /** Undefined: everything in the account. */
  readonly permissions: NatsPermissions | undefined;
}

/**
 * @throws RangeError for a name that is given twice, and for one that no service can have
 * @throws ProblemError `request_invalid` for what no audience can be called
 */
export function natsConfig(options: NatsConfigOptions = {}): NatsConfig {
  const { audiences = [], services = [], login = 'password', secrets, operator = false } = options;
  for (const audience of audiences) checkName('audience', audience);
  for (const { audience } of services) if (audience !== null) checkName('audience', audience);
  assertDistinct('audience', audiences);
  assertDistinct(
    'service',
    services.map(({ name }) => name),
  );
  const named = (kind: string, name: string, permissions: NatsPermissions): User => ({
    user: `${kind}-${encodeToken(name)}`,
    variable: variable(login, `${kind.toUpperCase()}_${variableToken(name)}`),
    permissions,
  });
  const core: User[] = [
    ...NATS_APPS.map((app) => ({
      user: app,
      variable: variable(login, app.toUpperCase()),
      permissions: APP_PERMISSIONS[app],
    })),
    ...services.map((service) => named('service', service.name, servicePermissions(service))),
    ...(operator
      ? [{ user: 'operator', variable: variable(login, 'OPERATOR'), permissions: undefined }]
      : []),
  ];
  const tenants = audiences.map((audience) => ({
    account: `AUDIENCE_${encodeToken(audience)}`,
    crossing: audienceCrossing(audience),
    user: named('audience', audience, audiencePermissions(audience)),
  }));
  const lines = [
    '# Accounts, users and what they may do. Made by npm run nats-config: change its options, not this.',
    ...(secrets === undefined ? [] : [`include ${quoted(secrets)}`]),
    'accounts {',
    `  ${CORE} {`,
    '    jetstream: enabled',
    ...usersOf(core, login),
    '    exports: [',
    ...tenants.flatMap(({ account, crossing }) => [
      `      { service: ${quoted(crossing.publish)}, accounts: [${quoted(account)}] }`,
      `      { stream: ${quoted(crossing.live)}, accounts: [${quoted(account)}] }`,
    ]),
    '    ]',
    '  }',
    ...tenants.flatMap(({ account, crossing, user }) => [
      `  ${quoted(account)} {`,
      ...usersOf([user], login),
      '    imports: [',
      `      { service: { account: ${CORE}, subject: ${quoted(crossing.publish)} } }`,
      `      { stream: { account: ${CORE}, subject: ${quoted(crossing.live)} } }`,
      '    ]',
      '  }',
    ]),
    '}',
    '',
  ];
  const users = [...core, ...tenants.map(({ user }) => user)];
  return {
    text: lines.join('\n'),
    logins: users.map(({ user, variable }) => ({ user, variable })),
  };
}

function usersOf(users: readonly User[], login: NatsLoginKind): string[] {
  return [
    '    users: [',
    ...users.flatMap(({ user, variable, permissions }) => [
      login === 'nkey'
        ? `      { # ${user}\n        nkey: $${variable}`
        : `      { user: ${quoted(user)}, password: $${variable}`,
      ...(permissions ? permissionLines(permissions) : []),
      '      }',
    ]),
    '    ]',
  ];
}

function permissionLines({ publish, subscribe }: NatsPermissions): string[] {
  const list = (subjects: readonly string[]) => [
    ...[...new Set(subjects)].map((subject) => `            ${quoted(subject)}`),
    '          ]',
  ];
  return [
    '        permissions {',
    '          publish {',
    '          allow: [',
    ...list(publish.allow),
    ...(publish.deny.length > 0 ? ['          deny: [', ...list(publish.deny)] : []),
    '          }',
    '          subscribe { allow: [',
    ...list(subscribe.allow),
    '          }',
    '        }',
  ];
}

function variable(login: NatsLoginKind, name: string): string {
  return `NATS_${login === 'nkey' ? 'NKEY' : 'PASSWORD'}_${name}`;
}

/** A name as part of a variable's: letters and digits as they are, any other byte as `_XX`. Injective. */
function variableToken(name: string): string {
  return encodeToken(name)
    .replace(/[_-]/g, (char) => (char === '_' ? '_5F' : '_2D'))
    .replaceAll('=', '_');
}

/** No name of ours holds what JSON would escape in another way than the server reads it. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

function assertDistinct(kind: string, names: readonly string[]): void {
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new RangeError(`the ${kind} ${twice} is named twice`);
}
