"""From trained weights to masks: tiles, fusion of members, folders of cases."""
