-- One row per SKU of the kept events. Every attribute is the first that was seen: the last one would tell, at launch,
-- of a price cut or a new category that came later.
-- Reads `came_events` and `kept_sku_ids`.
with came as (
    select came_events.*
    from came_events
    semi join kept_sku_ids on kept_sku_ids.sku_id = came_events.sku_id
    where not read_before and happened_at is not null and early_rule is null and happened_at between timestamp '2000-01-01 00:00:00' and timestamp '{now}'
),

first_seen as (
    select
        sku_id,
        {attributes}
    from came
    group by sku_id
)

select * from first_seen
