-- One row per SKU x period x channel: the orders, units, revenue and refunds that a channel is credited with, and beside
-- them what was logged under it. Summed over the channels, each SKU x period has what the log has.
-- Reads `all_judged_events`; persons are hashes, and end here. Without attribution, as_logged.sql stands in its place.
-- Events that an earlier call has read lead to orders, and their orders to refunds; what they sold is not counted again.
with kept as (
    select * from all_judged_events
    where rule is null and kind <> 'ignored'
),

log_began as (
    select min(happened_at) as began_at from kept
),

-- What one visit bought of a SKU is one order; a purchase that names no visit is an order of its own, told by who and
-- when (those that are alike in both share one row here, and are counted).
purchases as (
    select
        read_before,
        sku_id,
        period_start,
        channel,
        happened_at,
        order_known,
        order_named,
        case when order_known then order_key end as order_key,
        case when not order_known then happened_at end as alone_at,
        case when not order_known and person_known then person end as alone_person,
        case when person_known then person end as person,
        {units} as units,
        coalesce(amount, 0) as amount
    from kept
    where kind = 'orders'
),

-- An order is dated by its first event: what came between its events did not bring it about.
grouped_orders as (
    select
        read_before,
        sku_id,
        period_start,
        channel,
        order_known,
        order_key,
        alone_at,
        alone_person,
        bool_or(order_named) as order_named,
        min({{'happened_at': happened_at, 'person': person}}) filter (where person is not null).person as person,
        min(happened_at) as ordered_at,
        case when order_known then 1 else count(*) end as orders,
        sum(units) as units,
        cast(sum(amount) * 10000 as hugeint) as revenue
    from purchases
    group by read_before, sku_id, period_start, channel, order_known, order_key, alone_at, alone_person
),

orders as (
    select
        *,
        row_number() over (
            order by sku_id asc nulls first, period_start asc nulls first, channel asc nulls first,
            order_key asc nulls first, alone_at asc nulls first, alone_person asc nulls first
        ) as order_no
    from grouped_orders
),

-- Several events of one moment and channel are one.
touches as (
    select distinct kept.person, kept.sku_id, kept.channel, kept.happened_at
    from kept
    semi join orders on orders.person = kept.person and orders.sku_id = kept.sku_id
    where kept.kind not in ('orders', 'refunds') and kept.person_known and kept.channel is not null
),

moments as (
    select person, sku_id, channel, happened_at, cast(null as timestamp) as ordered_at from touches
    union all
    select distinct person, sku_id, cast(null as varchar), ordered_at, ordered_at from orders where person is not null
),

-- The first order from then on: a touch and an order of the same moment meet.
led as (
    select
        person,
        sku_id,
        channel,
        happened_at,
        min(ordered_at) over (partition by person, sku_id order by happened_at desc nulls last) as next_order_at
    from moments
),

-- Touches of one channel with no longer gap than this between them are one visit, and an order ends a visit: so no
-- visit holds anything from after the order that it is counted for.
gaps as (
    select
        *,
        case
            when lag(happened_at) over (
                partition by person, sku_id, channel, next_order_at order by happened_at asc nulls first
            ) + {visit_gap} >= happened_at then 0
            else 1
        end as begins
    from led
    where channel is not null and next_order_at is not null
),

numbered as (
    select
        *,
        sum(begins) over (
            partition by person, sku_id, channel, next_order_at order by happened_at asc nulls first
        ) as visit_no
    from gaps
),

visits as (
    select
        person,
        sku_id,
        channel,
        min(happened_at) as started_at,
        max(happened_at) as ended_at
    from numbered
    group by person, sku_id, channel, next_order_at, visit_no
    having max(happened_at) + {window} >= next_order_at
),

numbered_visits as (
    select
        *,
        row_number() over (
            partition by person, sku_id
            order by ended_at asc nulls first, started_at asc nulls first, channel asc nulls first
        ) as visit_no
    from visits
),

visits_and_orders as (
    select person, sku_id, ended_at as happened_at, 1 as visits, cast(null as bigint) as order_no from numbered_visits
    union all
    select person, sku_id, ordered_at, 0, order_no from orders where person is not null
),

counted_up as (
    select
        person,
        sku_id,
        happened_at as ordered_at,
        order_no,
        sum(visits) over (partition by person, sku_id order by happened_at asc nulls first) as visits_before
    from visits_and_orders
),

-- An order counts its last {most_visits} visits at most: more are no person's, but a robot's or those of an id that all
-- guests share, and each order would meet each visit. So visits are joined by the block that their number falls into.
blocks as (
    select 0 as back
    union all
    select 1 as back
),

reaching as (
    select
        person,
        sku_id,
        ordered_at,
        order_no,
        visits_before,
        (visits_before - 1) // {most_visits} - back as block
    from counted_up
    cross join blocks
    where order_no is not null and visits_before > 0
),

reached as (
    select
        reaching.order_no,
        numbered_visits.channel,
        numbered_visits.started_at,
        numbered_visits.ended_at
    from reaching
    join numbered_visits
        on numbered_visits.person = reaching.person
        and numbered_visits.sku_id = reaching.sku_id
        and (numbered_visits.visit_no - 1) // {most_visits} = reaching.block
        and numbered_visits.visit_no <= reaching.visits_before
        and numbered_visits.visit_no > reaching.visits_before - {most_visits}
        and numbered_visits.ended_at + {window} >= reaching.ordered_at
),

told_apart as (
    select
        *,
        started_at = min(started_at) over (partition by order_no) as is_first,
        ended_at = max(ended_at) over (partition by order_no) as is_last,
        max(ended_at) over (partition by order_no) as last_at
    from reached
),

placed as (
    select
        order_no,
        channel,
        is_first,
        is_last,
        date_diff('microsecond', ended_at, last_at) / {half_life} as half_lives,
        count(*) filter (where is_first) over (partition by order_no) as first_visits,
        count(*) filter (where is_last) over (partition by order_no) as last_visits,
        count(*) filter (where not is_first and not is_last) over (partition by order_no) as other_visits
    from told_apart
),

-- Weights are whole numbers, so that sums do not depend on their order. Visits of one moment share alike.
weighed as (
    select
        order_no,
        channel,
        case '{model}'
            when 'last' then case when is_last then 1 else 0 end
            when 'first' then case when is_first then 1 else 0 end
            when 'linear' then 1
            when 'time_decay' then cast(round(1e9 * pow(2.0, -half_lives)) as bigint)
            when 'position' then
                case when is_first then {first_share} // first_visits else 0 end
                + case when is_last then {last_share} // last_visits else 0 end
                + case when not is_first and not is_last then {middle_share} // other_visits else 0 end
        end as weight
    from placed
),

-- An order that nothing led to keeps its own channel.
weights as (
    select order_no, channel, sum(weight) as weight, count(*) as visits
    from weighed
    group by order_no, channel

    union all

    select orders.order_no, orders.channel, 1 as weight, 0 as visits
    from orders
    anti join weighed on weighed.order_no = orders.order_no
),

-- Of equals the one with the lower lot goes first: it favours no channel over SKUs and periods, and is the same each time.
drawn as (
    select
        orders.*,
        weights.channel as credited,
        weights.weight,
        weights.visits as channel_visits,
        md5(concat_ws('|', orders.sku_id, orders.period_start, weights.channel)) as lot
    from weights
    join orders on orders.order_no = weights.order_no
),

ranked as (
    select
        *,
        sum(weight) over (partition by order_no) as all_weight,
        sum(channel_visits) over (partition by order_no) as visits,
        row_number() over (partition by order_no order by weight desc nulls last, lot asc nulls first) as place
    from drawn
),

-- Shares are in billionths and money in ten-thousandths, both rounded down; what is left goes to the largest share.
rounded_down as (
    select
        *,
        1000000000 * weight // all_weight as share_down,
        revenue * weight // all_weight as revenue_down
    from ranked
    where weight > 0
),

shares as (
    select
        * exclude (revenue),
        share_down
            + case when place = 1 then 1000000000 - sum(share_down) over (partition by order_no) else 0 end as share,
        revenue_down
            + case when place = 1 then revenue - sum(revenue_down) over (partition by order_no) else 0 end as revenue
    from rounded_down
),

grouped_refunds as (
    select
        sku_id,
        period_start,
        channel,
        happened_at,
        case when order_named then order_key end as order_key,
        count(*) as refund_events,
        cast(coalesce(sum(amount), 0) * 10000 as hugeint) as refunds
    from kept
    where kind = 'refunds' and not read_before
    group by sku_id, period_start, channel, happened_at, case when order_named then order_key end
),

-- The order that a refund names, by its id: the last of that id up to then, as lines of one order may be days apart.
followed as (
    select
        grouped_refunds.sku_id,
        grouped_refunds.order_key,
        grouped_refunds.happened_at,
        max({{'ordered_at': orders.ordered_at, 'order_no': orders.order_no}}).order_no as order_no
    from grouped_refunds
    join orders
        on orders.order_key = grouped_refunds.order_key
        and orders.sku_id = grouped_refunds.sku_id
        and orders.order_named
        and orders.ordered_at <= grouped_refunds.happened_at
    group by grouped_refunds.sku_id, grouped_refunds.order_key, grouped_refunds.happened_at
),

refund_shares as (
    select
        grouped_refunds.*,
        followed.order_no is not null as is_followed,
        case when followed.order_no is not null then shares.credited else grouped_refunds.channel end as credited,
        coalesce(shares.place, 1) as place,
        coalesce(grouped_refunds.refunds * shares.weight // shares.all_weight, grouped_refunds.refunds) as refunds_down
    from grouped_refunds
    left join followed
        on followed.sku_id = grouped_refunds.sku_id
        and followed.order_key = grouped_refunds.order_key
        and followed.happened_at = grouped_refunds.happened_at
    left join shares on shares.order_no = followed.order_no
),

credited_refunds as (
    select
        *,
        refunds_down + case
            when place = 1 then refunds - sum(refunds_down) over (
                partition by sku_id, period_start, channel, happened_at, order_key
            )
            else 0
        end as refunds_credited
    from refund_shares
),

-- What a channel gets, and under the channel that was logged what it had: the same columns, 0 where they do not apply.
parts as (
    select
        sku_id, period_start, credited as channel,
        orders * share as orders, units * share as units, revenue, 0 as refunds,
        0 as logged_orders, 0 as logged_revenue, 0 as logged_refunds, 0 as touched_orders, 0 as many_touched_orders,
        0 as cut_orders, 0 as refund_events, 0 as followed_events,
        case when credited is distinct from channel then orders * share else 0 end as moved_orders,
        case when credited is distinct from channel then revenue else 0 end as moved_revenue
    from shares
    where not read_before

    union all

    select
        sku_id, period_start, channel, 0, 0, 0, 0,
        orders, ranked.revenue, 0, case when visits > 0 then orders else 0 end, case when visits > 1 then orders else 0 end,
        case when ordered_at < began_at + {window} and person is not null then orders else 0 end, 0, 0, 0, 0
    from ranked
    cross join log_began
    where place = 1 and not read_before

    union all

    select sku_id, period_start, credited, 0, 0, 0, refunds_credited, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    from credited_refunds

    union all

    select
        sku_id, period_start, channel, 0, 0, 0, 0, 0, 0, refunds, 0, 0, 0,
        refund_events, case when is_followed then refund_events else 0 end, 0, 0
    from credited_refunds
    where place = 1
),

cells as (
    select
        sku_id,
        period_start,
        channel,
        md5(concat_ws('|', sku_id, period_start, channel)) as lot,
        sum(orders) as orders,
        sum(units) as units,
        sum(revenue) as revenue,
        sum(refunds) as refunds,
        sum(logged_orders) as logged_orders,
        sum(logged_revenue) as logged_revenue,
        sum(logged_refunds) as logged_refunds,
        sum(touched_orders) as touched_orders,
        sum(many_touched_orders) as many_touched_orders,
        sum(cut_orders) as cut_orders,
        sum(refund_events) as refund_events,
        sum(followed_events) as followed_events,
        sum(moved_orders) as moved_orders,
        sum(moved_revenue) as moved_revenue
    from parts
    group by sku_id, period_start, channel
),

-- Counts are whole: rounded down, and what is left of the SKU x period goes to the largest remainders.
remainders as (
    select
        *,
        row_number() over (
            partition by sku_id, period_start order by orders % 1000000000 desc nulls last, lot asc nulls first
        ) as orders_place,
        row_number() over (
            partition by sku_id, period_start order by units % 1000000000 desc nulls last, lot asc nulls first
        ) as units_place,
        sum(orders % 1000000000) over (partition by sku_id, period_start) // 1000000000 as orders_left,
        sum(units % 1000000000) over (partition by sku_id, period_start) // 1000000000 as units_left
    from cells
),

order_credits as (
    select
        sku_id,
        period_start,
        channel,
        cast(orders // 1000000000 + case when orders_place <= orders_left then 1 else 0 end as bigint) as orders,
        units // 1000000000 + case when units_place <= units_left then 1 else 0 end as units,
        cast(revenue as decimal(38, 0)) * cast(0.0001 as decimal(4, 4)) as revenue,
        cast(refunds as decimal(38, 0)) * cast(0.0001 as decimal(4, 4)) as refunds,
        logged_orders,
        cast(logged_revenue as decimal(38, 0)) * cast(0.0001 as decimal(4, 4)) as logged_revenue,
        cast(logged_refunds as decimal(38, 0)) * cast(0.0001 as decimal(4, 4)) as logged_refunds,
        touched_orders,
        many_touched_orders,
        cut_orders,
        refund_events,
        followed_events,
        orders / 1e9 as orders_exactly,
        moved_orders / 1e9 as moved_orders,
        cast(moved_revenue as decimal(38, 0)) * cast(0.0001 as decimal(4, 4)) as moved_revenue
    from remainders
)

select * from order_credits
