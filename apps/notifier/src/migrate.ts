import { runMigrations } from '@posthorn/database';
import { runMain } from '@posthorn/service';
import { SCHEMA } from './schema.js';

await runMain(() => runMigrations('notifier', process.env, SCHEMA));
