-- One row per event that came, typed, with the first rule that it breaks (NULL: none) and, if so, its content.
-- Reads `came_events` (see events.py) and `event_kinds(event, kind)`. Persons and sessions leave as hashes.
-- Becomes `all_judged_events`; `judged_events` are those of files that no earlier call has read.
with came as (
    select * from came_events
),

named as (
    select came.*, event_kinds.kind
    from came
    left join event_kinds on event_kinds.event = lower(came.event)
),

ruled as (
    select
        *,
        case
            when early_rule in ('torn_line', 'not_a_product', 'price_zero') then early_rule
            when time_given is null then 'event_time_missing'
            when happened_at is null then 'event_time_unreadable'
            when happened_at < timestamp '2000-01-01 00:00:00' then 'event_time_before_2000'
            when happened_at > timestamp '{now}' then 'event_time_in_the_future'
            when day_given is not null and day is null then 'event_date_unreadable'
            when event is null then 'event_missing'
            -- A page view says nothing of a SKU: counted in the summary, set nowhere.
            when kind = 'ignored' or (kind is null and early_rule = 'no_items') then null
            when kind is null then 'event_unknown'
            when early_rule is not null then early_rule
            when sku_id is null then 'sku_id_missing'
            when length(sku_id) > {max_id} then 'sku_id_too_long'
            when length(category) > {max_id} then 'category_too_long'
            when length(channel) > {max_id} then 'channel_too_long'
            when length(title) > {max_title} then 'title_too_long'
            {attribute_rules}
            when price_given is not null and price is null then 'price_unreadable'
            when price < 0 then 'price_negative'
            when price > 1e9 then 'price_above_a_billion'
            when quantity_given is not null and quantity is null then 'quantity_unreadable'
            when quantity < 0 then 'quantity_negative'
            when quantity > 1e9 then 'quantity_above_a_billion'
            when amount_given is not null and amount is null then 'amount_unreadable'
            when amount < 0 then 'amount_negative'
            when amount > 1e12 then 'amount_above_a_trillion'
            when kind in ('orders', 'refunds') and {quantity_counts} and quantity is null then 'quantity_missing'
            when kind in ('orders', 'refunds') and {quantity_counts} and quantity = 0 then 'quantity_zero'
            when kind = 'orders' and {price_counts} and price is null and amount is null then 'price_missing'
        end as rule
    from named
),

judged as (
    select
        read_before,
        kind,
        rule,
        coalesce(cast(day as timestamp), time_bucket({period}, happened_at, timestamp '2000-01-03 00:00:00')) as period_start,
        happened_at,
        sku_id,
        channel,
        hash(person) as person,
        person is not null as person_known,
        hash(coalesce(order_id, session)) as order_key,
        order_id is not null or session is not null as order_known,
        order_id is not null as order_named,
        cast(quantity as bigint) as quantity,
        try_cast(coalesce(amount, price * coalesce(quantity, 1)) as decimal(38, 4)) as amount,
        case when rule is not null then cast(to_json(content) as varchar) end as content,
        case
            when rule is null and kind = 'ignored' then lower(event)
            when rule is null and kind is null then 'without items'
        end as left_out
    from ruled
)

select * from judged
