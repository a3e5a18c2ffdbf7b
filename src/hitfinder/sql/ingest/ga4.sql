-- One row per item of each event of a GA4 export; an event without items stays one row without an item.
-- Reads `exported`: the export's own columns as text, `items` as JSON.
with exported_events as (
    select * from exported
),

listed as (
    select
        event_date,
        event_timestamp,
        event_name,
        user_pseudo_id,
        transaction_id,
        channel,
        from_json(items, '[{{"item_id":"VARCHAR","item_name":"VARCHAR","item_brand":"VARCHAR","item_variant":"VARCHAR","item_category":"VARCHAR","price":"VARCHAR","quantity":"VARCHAR","item_revenue":"VARCHAR"}}]') as listed_items
    from exported_events
),

unnested as (
    select
        * exclude (listed_items),
        unnest(case when len(listed_items) > 0 then listed_items else [null] end) as item
    from listed
),

item_events as (
    select
        event_date,
        event_timestamp,
        event_name,
        user_pseudo_id,
        nullif(transaction_id, '(not set)') as transaction_id,
        channel,
        nullif(item.item_id, '(not set)') as item_id,
        nullif(item.item_name, '(not set)') as item_name,
        nullif(item.item_brand, '(not set)') as item_brand,
        nullif(item.item_variant, '(not set)') as item_variant,
        nullif(item.item_category, '(not set)') as item_category,
        item.price as price,
        -- Google's own reading: no quantity is a quantity of one.
        case when item is not null then coalesce(item.quantity, '1') end as quantity,
        item.item_revenue as item_revenue,
        -- A malformed line of JSON comes as a row of nothing; an event without items is none of ours.
        case
            when event_timestamp is null and event_name is null then 'torn_line'
            when item is null then 'no_items'
        end as early_rule
    from unnested
)

select * from item_events
