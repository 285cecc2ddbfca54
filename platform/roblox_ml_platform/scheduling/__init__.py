"""Recurring pipelines: published pipelines, schedules, triggers, backfills, and the runs that are due."""
