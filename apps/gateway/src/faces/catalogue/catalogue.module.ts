/** The catalogue of topics, for programs: `GET /v1/asyncapi.json`. */
import { Module } from '@nestjs/common';
import { CatalogueController } from './catalogue.controller.js';

@Module({ controllers: [CatalogueController] })
export class CatalogueModule {}
