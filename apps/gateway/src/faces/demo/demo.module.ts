/** `/demo`: two people of a room on one page, with the client SDK and nothing else. Only where DEMO is set. */
import { Module } from '@nestjs/common';
import { DemoController } from './demo.controller.js';
import { DemoFiles } from './demo-files.js';
import { DemoPeople } from './demo-people.js';

@Module({ controllers: [DemoController], providers: [DemoFiles, DemoPeople] })
export class DemoModule {}
