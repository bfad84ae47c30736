/** The servers that are measured side by side, and what the workloads know of each. */
import { startNatsListener } from './contenders/nats-listener.mjs';
import { startPlainLoop } from './contenders/plain-loop.mjs';
import { startPosthorn } from './contenders/posthorn.mjs';

/**
 * @typedef {object} Place
 * @property {string} dir a directory of its own, removed afterwards
 * @property {string} [profiles] where the gateway's CPU profiles go; none are taken without
 */

/**
 * @typedef {object} Server
 * @property {Record<string, number>} pids the processes whose cost counts
 * @property {number[]} helperPids further processes of the same installation
 * @property {() => Promise<import('./connection.mjs').Target>} target where to connect in the next minute
 * @property {() => void} [profile] begins or ends profiles
 * @property {() => Promise<void>} stop
 */

/** @type {Record<'plain loop' | 'nats listener' | 'posthorn', (place: Place) => Promise<Server>>} */
export const contenders = {
  posthorn: startPosthorn,
  'plain loop': startPlainLoop,
  'nats listener': startNatsListener,
};
