/** What the script-tag build puts into the page: `Posthorn`, `PubSub` and `PosthornError`. */
import { PosthornError } from './error.js';
import { Posthorn } from './posthorn.js';
import { PubSub } from './pubsub.js';

Object.assign(globalThis, { Posthorn, PubSub, PosthornError });
